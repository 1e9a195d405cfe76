"""Each example of a source several times, for changes that are drawn for each copy by itself."""

from collections.abc import Iterator

from fmrgen.sources.base import RawExample, Source


class Copies(Source):
    """`count` copies of each example, one after another; the copy j of the example i has the id `i · count + j`."""

    def __init__(self, source: Source, count: int) -> None:
        self.labels, self.accepts_several, self.columns = source.labels, source.accepts_several, source.columns
        self._source, self._count = source, count

    def __len__(self) -> int:
        return len(self._source) * self._count

    def read(self, start: int, stop: int) -> Iterator[RawExample]:
        position = start // self._count
        for example in self._source.read(position, -(-stop // self._count)):
            for copy in range(self._count):
                if start <= position * self._count + copy < stop:
                    yield example._replace(id=example.id * self._count + copy)
            position += 1

"""Plots as elements of a page: where one points, a figure with its interval is shown; a click filters the gallery."""

import html
import xml.etree.ElementTree as ElementTree

from matplotlib.patches import Rectangle

from fmrgen.errors import printable, printable_lines
from fmrgen.image_files import open_rgb, webp_address
from fmrgen.report.plot import Plot
from fmrgen.report.report import Picture

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
ElementTree.register_namespace("", _SVG)
ElementTree.register_namespace("xlink", _XLINK)
_POINTS_AN_INCH = 72
_PAGE_DOTS_PER_INCH = 100  # at which a plot's letters are as large as the page's
_FILE_DOTS_PER_INCH = 160  # savefig.dpi in plot.py
_QUALITY = 85  # of WebP, in percent
_LONGEST = 400_000  # letters of SVG; a plot that takes more is a bitmap


def drawn(picture: Picture, plot: Plot, png: bytes | None, *, has_gallery: bool) -> str:
    """Return a picture as an element of HTML, all its texts escaped: SVG, or a bitmap of photos.

    Args:
        picture: says whether it consists of photos.
        plot: its content.
        png: its file, if it has been drawn already.
        has_gallery: whether the page has a gallery, which the plot's places filter.
    """
    if not picture.of_photos:
        svg = _svg(picture, plot, has_gallery=has_gallery)
        if len(svg) <= _LONGEST:
            return svg
    bitmap = open_rgb(png or plot.to_bytes())
    address = webp_address(bitmap, _QUALITY)
    width = bitmap.width * _PAGE_DOTS_PER_INCH // _FILE_DOTS_PER_INCH
    style = "" if picture.of_photos else ' class="drawn"'
    return f'<img src="{address}" width="{width}" alt="{_escaped(picture.caption)}"{style}>'


def _svg(picture: Picture, plot: Plot, *, has_gallery: bool) -> str:
    """Return an `svg` element with a link at each of the plot's places; its letters are the page's."""
    patches = []
    for number, place in enumerate(plot.places):
        patch = Rectangle((place.left, place.low), place.width, place.height, alpha=0, linewidth=0, zorder=9)
        patch.set_url(f"#{number}")
        place.axes.add_patch(patch)
        patches.append(patch)
    try:
        root = ElementTree.fromstring(plot.to_bytes("svg", as_text=True))
    finally:
        for patch in patches:
            patch.remove()
    for part in root.iter(f"{{{_SVG}}}g"):
        part.attrib.pop("id", None)  # the same in every plot of a page
    for part in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(part)
    for link in root.iter(f"{{{_SVG}}}a"):
        place = plot.places[int(link.attrib.pop(f"{{{_XLINK}}}href").removeprefix("#"))]
        link.attrib.pop("target", None)
        if has_gallery and place.filter:
            link.set("href", f"#{place.filter}")
        title = ElementTree.Element(f"{{{_SVG}}}title")
        title.text = printable_lines(place.title)
        link.insert(0, title)
    width = float(root.attrib.pop("width").removesuffix("pt"))
    root.attrib.pop("height")
    root.set("width", f"{width * _PAGE_DOTS_PER_INCH / _POINTS_AN_INCH:.0f}")
    root.set("class", "drawn")
    root.set("role", "group")
    root.set("aria-label", printable(picture.caption))
    return ElementTree.tostring(root, encoding="unicode")


def _escaped(text: str) -> str:
    return html.escape(printable(text))

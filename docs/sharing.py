"""What other sites and programs read of the documentation: each page's summary, its card, and llms.txt."""

import html
import re
import textwrap
from pathlib import Path

import matplotlib
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.nav import Navigation, Section
from mkdocs.structure.pages import Page
from PIL import Image, ImageDraw, ImageFont

_LONGEST = 200  # characters of a summary
_SIZE = (1200, 630)  # pixels of a card, as the sites that show them ask for
_MARGIN = 70
_DARK, _PALE, _ACCENT = "#263238", "#eceff1", "#ff7043"
_FONTS = Path(matplotlib.get_data_path(), "fonts/ttf")
_PICTURE = "images/gtsrb-cnn.png"
_ROW = (32, 192)  # pixels from the top of that picture, between which its first row stands
_navigation: list[Navigation] = []
_texts: dict[str, str] = {}  # the Markdown of each page, by its address


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> Navigation:
    """Keeps the order of the pages for llms.txt."""
    _navigation[:] = [nav]
    return nav


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Takes a page's first paragraph as its summary, unless it has one."""
    page.meta.setdefault("description", _summary(markdown))
    _texts[page.url] = markdown
    return markdown


def _summary(markdown: str) -> str:
    for paragraph in re.split(r"\n\s*\n", markdown):
        if re.match(r"[\w`*\[]", paragraph.strip()):
            text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(paragraph.split()))
            return textwrap.shorten(re.sub(r"[*`]", "", text), _LONGEST, placeholder=" …")
    return ""


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Names the card in the head of a page, and draws it."""
    card = f"assets/cards/{page.url.strip('/').replace('/', '-') or 'index'}.png"
    path = Path(config.site_dir, card)
    path.parent.mkdir(parents=True, exist_ok=True)
    title = str(page.title)
    _draw(title, page.meta["description"], Path(config.docs_dir, _PICTURE)).save(path, optimize=True)
    tags = {
        "og:type": "website",
        "og:site_name": config.site_name,
        "og:title": title,
        "og:description": page.meta["description"],
        "og:image": f"{config.site_url}{card}",
        "og:url": page.canonical_url,
        "twitter:card": "summary_large_image",
    }
    lines = [f'<meta property="{name}" content="{html.escape(str(value))}">' for name, value in tags.items()]
    return output.replace("</head>", "\n".join(lines) + "\n</head>", 1)


def _draw(title: str, summary: str, picture: Path) -> Image.Image:
    """Return the card of a page: name, title, summary, and pairs of images."""
    card = Image.new("RGB", _SIZE, _DARK)
    pen = ImageDraw.Draw(card)
    pen.rectangle((0, 0, 14, _SIZE[1]), fill=_ACCENT)
    large, middle, small = (
        ImageFont.truetype(str(_FONTS / name), size)
        for name, size in (("DejaVuSans-Bold.ttf", 60), ("DejaVuSans.ttf", 30), ("DejaVuSans-Bold.ttf", 30))
    )
    pen.text((_MARGIN, 55), "fmrgen", font=small, fill=_ACCENT)
    lines = textwrap.wrap(title, 28)[:2]
    pen.multiline_text((_MARGIN, 115), "\n".join(lines), font=large, fill=_PALE, spacing=12)
    below = 115 + 75 * len(lines) + 20
    summary_lines = textwrap.wrap(summary, 62)[: 5 - len(lines)]
    pen.multiline_text((_MARGIN, below), "\n".join(summary_lines), font=middle, fill=_PALE, spacing=12)
    with Image.open(picture) as pairs:
        width = _SIZE[0] - 2 * _MARGIN
        scaled = pairs.convert("RGB").resize((width, pairs.height * width // pairs.width))
    card.paste(scaled.crop((0, _ROW[0], width, _ROW[1])), (_MARGIN, _SIZE[1] - 25 - (_ROW[1] - _ROW[0])))
    return card


def on_post_build(config: MkDocsConfig) -> None:
    """Writes llms.txt, a map of the pages for language models, and llms-full.txt, all of them."""
    lines = [f"# {config.site_name}", "", f"> {config.site_description}", ""]
    pages = []
    for entry in _navigation[0].items:
        inner = [page for page in entry.children if isinstance(page, Page)] if isinstance(entry, Section) else [entry]
        if isinstance(entry, Section):
            lines += ["", f"## {entry.title}", ""]
        for page in inner:
            lines.append(f"- [{page.title}]({page.canonical_url}): {page.meta['description']}")
        pages += inner
    Path(config.site_dir, "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    whole = "\n\n".join(f"<!-- {page.canonical_url} -->\n\n{_texts[page.url]}" for page in pages)
    Path(config.site_dir, "llms-full.txt").write_text(whole + "\n", encoding="utf-8")

"""Saved pages: main content with its pictures in order, what the page says of itself, and pages that mean harm."""

from __future__ import annotations

import base64
import resource
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts.pages import jpeg
from layouts.text import prose

from omnimill.errors import BadRecord
from omnimill.pipelines.decoders.outline import Block, Outline, PictureRef, interleave, squash
from omnimill.pipelines.decoders.text import html_source
from omnimill.pipelines.decoders.webpage import Page, extract_page, read_page
from omnimill.pipelines.sources.documents import DocumentPictures
from omnimill.pipelines.sources.html_pages import HtmlPagesSource
from omnimill.schema import Example

NAVIGATION = "<nav><ul>" + "".join(f"<li><a href='/{i}'>Section {i}</a></li>" for i in range(8)) + "</ul></nav>"


def paragraph(name: str) -> str:
    return prose(name, 4, 4)


def article(*body: str, head: str = "", attributes: str = 'lang="en-GB"') -> str:
    return (
        f"<!DOCTYPE html><html {attributes}><head><meta charset='utf-8'><title>The mill</title>{head}</head><body>"
        f"{NAVIGATION}<main><article><h1>The mill</h1>{''.join(body)}</article></main>"
        f"<footer><img src='badge.png' alt='badge'><p>All rights reserved.</p></footer></body></html>"
    )


def p(name: str) -> str:
    return f"<p>{paragraph(name)}</p>"


def img(name: str) -> str:
    return f"<img src='{name}' alt='what {name} shows'>"


def shape(page: Page) -> list[str]:
    """The first candidate of pictures and the last word of texts, in order."""
    return [item.candidates[0] if isinstance(item, PictureRef) else item.split()[-1] for item in page.items]


def source(path: Path, **options: Any) -> HtmlPagesSource:
    return HtmlPagesSource(type="html_pages", name="pages", path=str(path), **options)


def save(folder: Path, html: str, *pictures: str, name: str = "page.html") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(html)
    for picture in pictures:
        (folder / picture).parent.mkdir(parents=True, exist_ok=True)
        (folder / picture).write_bytes(jpeg(picture))


def test_pictures_and_the_text_between_them_keep_their_order() -> None:
    body = [
        img("0.jpg"),
        p("a"),
        p("b"),
        img("1.jpg"),
        img("2.jpg"),
        p("c"),
        f"<figure>{img('3.jpg')}</figure>",
        p("d"),
    ]
    page = extract_page(article(*body, "<ul><li>First thing to do.</li>", img("4.jpg"), "<li>Second thing.</li></ul>"))
    ends = [paragraph(name).split()[-1] for name in "bcd"]
    assert shape(page) == ["mill", "0.jpg", ends[0], "1.jpg", "2.jpg", ends[1], "3.jpg", "do.", "4.jpg", "thing."]
    texts = "\n".join(item for item in page.items if isinstance(item, str))
    assert all(paragraph(name) in texts for name in "abcd")
    assert "Section 3" not in texts
    assert "rights" not in texts


def test_pictures_inside_links_tables_and_lazy_tags_are_found() -> None:
    lazy = "<img src='data:image/gif;base64,R0lGODlhAQABAAAAACw=' data-src='lazy.jpg'>"
    lazy += "<noscript><img src='lazy.jpg'></noscript>"
    responsive = "<picture><source srcset='big.webp 1200w, small.webp 300w'><img src='fallback.jpg'></picture>"
    linked = "<a href='large.JPG'><img src='thumbnail.jpg'></a><a href='page.html'><img src='linked.jpg'></a>"
    page = extract_page(article(p("a"), lazy, p("b"), responsive, p("c"), linked, p("d")))
    pictures = [item.candidates for item in page.items if isinstance(item, PictureRef)]
    assert [candidates[0] for candidates in pictures] == ["lazy.jpg", "big.webp", "large.JPG", "linked.jpg"]
    assert pictures[1] == ("big.webp", "small.webp", "fallback.jpg")


def test_a_page_says_what_it_is() -> None:
    head = (
        "<link rel='canonical' href='https://example.org/mill'><base href='https://cdn.example.org/x/'>"
        "<meta name='robots' content='NoArchive, max-snippet: 20, noai'><meta name='tdm-reservation' content='1'>"
        "<meta property='article:published_time' content='2021-03-04T10:00:00Z'>"
    )
    page = extract_page(article(p("a"), p("b"), head=head))
    assert (page.title, page.language, page.date) == ("The mill", "en", "2021-03-04")
    assert (page.url, page.base) == ("https://example.org/mill", "https://cdn.example.org/x/")
    assert page.robots == ("NoArchive, max-snippet: 20, noai", "tdm-reservation")


def test_a_date_in_the_future_of_some_clock_is_the_same_everywhere() -> None:
    head = "<meta property='article:published_time' content='2036-03-04T10:00:00Z'>"
    assert extract_page(article(p("a"), head=head)).date == "2036-03-04"


_WORD = st.text("abcdefgh", min_size=4, max_size=9)
_PLACED = st.lists(st.lists(_WORD, min_size=6, max_size=12).map(" ".join) | st.integers(0, 3), max_size=12)


@settings(max_examples=200)
@given(_PLACED, st.integers(0, 5))
def test_every_picture_among_kept_paragraphs_comes_where_it_stood(items: list[str | int], left_out: int) -> None:
    """With all paragraphs kept the order is that of the page; with some left out it is still that of the rest."""
    stream, pictures = "", []
    for i, item in enumerate(items):
        if isinstance(item, str):
            stream += squash(item)
        else:
            pictures.append((len(stream), PictureRef((f"{i}.jpg",))))
    texts = [item for item in items if isinstance(item, str)]
    kept = [text for i, text in enumerate(texts) if i != left_out]
    found = list(interleave([Block(text, text) for text in kept], Outline(stream, tuple(pictures))))
    wanted: list[str | PictureRef] = []
    number = 0
    for i, item in enumerate(items):
        if not isinstance(item, str):
            wanted.append(PictureRef((f"{i}.jpg",)))
            continue
        if number != left_out:
            if wanted and isinstance(wanted[-1], str):
                wanted[-1] += f"\n\n{item}"
            else:
                wanted.append(item)
        number += 1
    if len(set(texts)) == len(texts) and kept:
        assert found == wanted


def test_a_picture_far_from_what_was_kept_is_left_out() -> None:
    aside = "x" * 2000
    page = Outline("kept" * 20 + aside, ((0, PictureRef(("near.jpg",))), (1500, PictureRef(("far.jpg",)))))
    found = list(interleave([Block("kept" * 20, "kept" * 20)], page))
    assert found == [PictureRef(("near.jpg",)), "kept" * 20]


def test_a_saved_page_is_read_with_the_pictures_beside_it(tmp_path: Path, read_source: Any) -> None:
    inline = base64.b64encode(jpeg("inline")).decode()
    body = [
        p("a"),
        img("page_files/one%20two.jpg"),
        p("b"),
        img("https://example.org/far.jpg"),
        p("c"),
        f"<img src='data:image/jpeg;base64,{inline}'>",
        img("/top.jpg"),
        p("d"),
        img("broken.jpg"),
        img("icon.jpg"),
    ]
    save(tmp_path / "site", article(*body), "page_files/one two.jpg")
    (tmp_path / "top.jpg").write_bytes(jpeg("top"))
    (tmp_path / "site" / "broken.jpg").write_bytes(b"no picture")
    (tmp_path / "site" / "icon.jpg").write_bytes(jpeg("icon", 16, 16))
    pages = source(tmp_path, licence="CC0-1.0")
    (example,), verdicts = read_source(pages)
    assert verdicts == {"site/page.html": "kept"}
    assert [(text.role, text.image) for text in example.text] == [
        ("body", None),
        ("alt_text", 0),
        ("body", 0),
        ("body", 0),
        ("alt_text", 2),
        ("body", 2),
    ]
    assert [image.uri for image in example.images] == [
        str(tmp_path / "site/page_files/one two.jpg"),
        str(tmp_path / "site/page.html") + "#data",
        str(tmp_path / "top.jpg"),
    ]
    assert example.meta.scores == {"pictures": 6.0, "pictures_missing": 1.0, "pictures_refused": 2.0}
    assert (example.meta.language, example.meta.licence) == ("en", "CC0-1.0")
    assert example.meta.tags == {"title": "The mill"}
    (unit,) = pages.units()
    names = sorted(Path(ref.uri).name for ref in pages.inputs(unit))
    assert names == ["broken.jpg", "icon.jpg", "one two.jpg", "page.html", "top.jpg"]


def test_what_a_document_lacks_can_cost_it(tmp_path: Path, read_source: Any) -> None:
    save(tmp_path, article(p("a"), img("here.jpg"), p("b"), img("gone.jpg")), "here.jpg")

    def verdict(**options: Any) -> str:
        _, verdicts = read_source(source(tmp_path, pictures=DocumentPictures(**options)))
        return str(verdicts["page.html"])

    assert verdict() == "kept"
    assert verdict(missing="drop") == "picture_missing"
    assert verdict(min_pictures=2) == "few_pictures"
    assert verdict(min_pictures=1, max_pictures=0) == "few_pictures"
    assert verdict(min_side=241) == "kept"
    assert verdict(min_side=241, min_pictures=1) == "few_pictures"
    assert verdict(max_aspect=1.3, min_pictures=1) == "few_pictures"


def test_a_picture_that_arrives_later_gives_another_example(tmp_path: Path, read_source: Any) -> None:
    save(tmp_path, article(p("a"), "<img src='late.jpg'>", p("b")))
    (before,), _ = read_source(source(tmp_path))
    (tmp_path / "late.jpg").write_bytes(jpeg("late"))
    (after,), _ = read_source(source(tmp_path))
    assert (len(before.images), len(after.images)) == (0, 1)
    assert before.id != after.id


def test_nothing_outside_the_folder_is_read(tmp_path: Path, read_source: Any) -> None:
    outside, folder = tmp_path / "secret.jpg", tmp_path / "in"
    outside.write_bytes(jpeg("secret"))
    references = [
        "../secret.jpg",
        "..%2Fsecret.jpg",
        f"{outside}",
        f"file://{outside}",
        "link.jpg",
        "a/../../secret.jpg",
    ]
    references += ["//host/secret.jpg", "\x00secret.jpg", "http://[::1", ".", "/", "/../secret.jpg"]
    save(folder, article(p("a"), *(f"<img src='{reference}'>" for reference in references), p("b")))
    (folder / "link.jpg").symlink_to(outside)
    pages = source(folder)
    (example,), _ = read_source(pages)
    assert example.images == []
    (unit,) = pages.units()
    assert [Path(ref.uri).name for ref in pages.inputs(unit)] == ["page.html"]


@pytest.mark.parametrize(
    ("content", "verdict", "pictures"),
    [
        ("index, follow", "kept", 1),
        ("noai", "robots_opt_out", 0),
        ("NoIndex,NoFollow", "robots_opt_out", 0),
        ("none", "robots_opt_out", 0),
        ("noimageai", "kept", 0),
        ("max-image-preview:none", "kept", 1),
        ("index noai", "robots_opt_out", 0),
    ],
)
def test_opt_outs_are_respected(tmp_path: Path, read_source: Any, content: str, verdict: str, pictures: int) -> None:
    head = f"<meta name='ROBOTS' content='{content}'>"
    save(tmp_path, article(p("a"), img("here.jpg"), p("b"), head=head), "here.jpg")
    examples, verdicts = read_source(source(tmp_path))
    assert verdicts == {"page.html": verdict}
    assert sum(len(example.images) for example in examples) == pictures
    kept = source(tmp_path, opt_outs=(), picture_opt_outs=())
    assert [len(example.images) for example in read_source(kept)[0]] == [1]


@pytest.mark.parametrize(
    ("data", "charset", "text"),
    [
        ("naïve".encode(), "iso-8859-1", "naïve"),
        ("naïve “q”".encode("cp1252"), "ISO-8859-1", "naïve “q”"),
        ("<meta charset=shift_jis>日本".encode("cp932"), None, "<meta charset=shift_jis>日本"),
        ("日本語のページ".encode("euc-jp"), "EUC-JP", "日本語のページ"),
        ("x".encode("utf-16"), None, "x"),
        (b"x" * 3000 + b"\xff", None, "x" * 3000 + "\ufffd"),
        (b"x\xff", None, None),
        (b"x\xff", "no-such-charset", None),
        (b"x\xff", "base64", None),
        (b"\xff\xfe\x00", "utf-7", None),
        ("日本".encode("euc-jp") * 50, "utf-8", None),
    ],
)
def test_charsets_are_those_that_browsers_would_take(data: bytes, charset: str | None, text: str | None) -> None:
    if text is None:
        with pytest.raises(BadRecord) as fault:
            html_source(data, charset)
        assert fault.value.reason == "invalid_utf8"
    else:
        assert html_source(data, charset) == text


_LAUGHS = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 12))
_DOCTYPE = f'<?xml version="1.0"?><!DOCTYPE html [<!ENTITY l0 "lol">{_LAUGHS}]>'
HOSTILE = {
    "laughs": f"{_DOCTYPE}<html><body><p>&l11;</p></body></html>",
    "external": '<?xml version="1.0"?><!DOCTYPE html [<!ENTITY x SYSTEM "file:///etc/passwd">]><html><p>&x;</p></html>',
    "long_line": f"<html><body><p>{'word ' * 400_000}</p></body></html>",
    "long_word": f"<html><body><p>{'x' * 2_000_000}</p></body></html>",
    "deep": f"<html><body>{'<div>' * 100_000}deep{'</div>' * 100_000}</body></html>",
    "deep_spans": f"<html><body><p>{'<span>' * 20_000}deep{'</span>' * 20_000}</p></body></html>",
    "deep_lists": f"<html><body>{'<ul><li>' * 5_000}deep</body></html>",
    "attributes": f"<html><body><p {' '.join(f'a{i}=1' for i in range(100_000))}>text</p></body></html>",
    "srcset": f"<html><body><p>text</p><img srcset='{'a ' * 100_000}'></body></html>",
    "pictures": f"<html><body><p>text</p>{'<img src=x.jpg>' * 10_000}</body></html>",
    "nothing": "<html></html>",
    "empty_tags": "<" * 200_000,
    "nul": "\0" * 1000 + "<p>text</p>",
    "no_html": "just some words",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_page_ends_in_a_verdict(name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        page = read_page(HOSTILE[name].encode(), 3.0)
    except BadRecord as fault:
        assert fault.reason.startswith("html_")
    else:
        told = "".join(item for item in page.items if isinstance(item, str))
        assert "root:" not in told
        assert len(told) <= len(HOSTILE[name])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


def test_a_page_that_takes_too_long_costs_itself_only() -> None:
    with pytest.raises(BadRecord) as fault:
        read_page(HOSTILE["attributes"].encode(), 0.5)
    assert fault.value.reason == "html_timeout"
    assert read_page(article(p("a")).encode(), 20.0).items


def test_faults_of_files_are_named(tmp_path: Path, read_source: Any) -> None:
    save(tmp_path, "", name="empty.html")
    save(tmp_path, article(p("a")) + " " * 5000, name="large.html")
    save(tmp_path, "<html><body></body></html>", name="blank.html")
    (tmp_path / "binary.html").write_bytes(b"<html>" + bytes(range(128, 256)) * 8)
    _, verdicts = read_source(source(tmp_path, max_page_bytes=4000))
    assert verdicts == {
        "empty.html": "empty_file",
        "large.html": "file_too_large",
        "blank.html": "no_text",
        "binary.html": "invalid_utf8",
    }


def test_real_pages_are_read(realdata: Path, read_source: Any) -> None:
    if not (realdata / "html").exists():
        return
    examples: list[Example]
    examples, verdicts = read_source(source(realdata / "html", opt_outs=()))
    assert set(verdicts.values()) == {"kept"}
    birds = next(example for example in examples if "birds" in example.key)
    assert len(birds.images) == 5
    assert [text.image for text in birds.text if text.role == "body"] == [0]


@pytest.mark.parametrize("spelling", ["remote", "relative", "slash", "file"])
def test_pictures_are_found_whatever_the_path_is_called(
    tmp_path: Path, read_source: Any, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    import fsspec

    save(tmp_path / "site" / "sub", article(p("a"), img("../1.jpg"), p("b"), img("x/2.jpg")), "../1.jpg", "x/2.jpg")
    monkeypatch.chdir(tmp_path)
    path = {"relative": "site", "slash": f"{tmp_path}/site/", "file": "site/sub/page.html"}.get(spelling)
    if path is None:
        path = f"memory://{tmp_path.name}/site"
        fsspec.filesystem("memory").put(str(tmp_path / "site"), f"/{tmp_path.name}/", recursive=True)
    pages = HtmlPagesSource(type="html_pages", name="pages", path=path)
    (example,), _ = read_source(pages)
    # A single file is a folder of its own: what lies above it is out of reach.
    assert len(example.images) == (1 if spelling == "file" else 2)
    (unit,) = pages.units()
    assert len(pages.inputs(unit)) == len(example.images) + 1

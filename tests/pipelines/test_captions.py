"""Captions that say nothing, and those that do."""

from __future__ import annotations

import pytest

from omnimill.pipelines.operators.captions import CaptionPlaceholder
from omnimill.schema import Example, Image, Provenance, Text

NOTHING = [
    "",
    "image",
    "Image 3.",
    "thumbnail image",
    "untitled-1",
    "PLACEHOLDER",
    "No caption",
    "IMG_1234",
    "DSC00012",
    "PXL_20210101_123456789",
    "20190504_102233",
    "Screenshot 2020-01-02 at 10.11.12",
    "WhatsApp Image 2019-05-04 at 10.22.33 AM",
    "photo-3.jpg",
    "https://cdn.example.com/a/b.jpg?w=300",
    "5f4dcc3b5aa765d61d8327deb882cf99",
    "{{ product.title }}",
    "Photo of ${name}",
    "12345",
    "a.",
    "red_shoe-2",
]
SOMETHING = [
    "Grass.",
    "Gravel",
    "A cat",
    "猫",
    "Image of a cat",
    "Photo by John Smith",
    "The seal was spotted playing in the shallows. Photo / <PERSON>",
    "Picture frame",
    "logo of the club",
    "New York",
    "Null Island",
    "Red shoe 2",
]


def example(*captions: str, uri: str = "photos/Red_Shoe-2.JPG", **more: object) -> Example:
    image = Image(data=b"", format="jpeg", width=1, height=1, digest="", uri=uri)
    return Example(
        id="i",
        source="s",
        unit="u",
        key="photos/7",
        provenance=Provenance(uri=uri, digest=""),
        text=[Text(role="caption", text=caption, image=0) for caption in captions],
        images=[image],
    )


@pytest.mark.parametrize("caption", NOTHING)
def test_a_caption_that_says_nothing(caption: str) -> None:
    assert CaptionPlaceholder(op="caption_placeholder")([example(caption)]) == ["caption_placeholder"]


@pytest.mark.parametrize("caption", SOMETHING)
def test_a_caption_that_says_something(caption: str) -> None:
    one = example(caption)
    assert CaptionPlaceholder(op="caption_placeholder")([one]) == [None]
    assert one.meta.scores == {"placeholder_captions": 0}


def test_the_name_of_its_own_picture_in_any_spelling() -> None:
    operator = CaptionPlaceholder(op="caption_placeholder", own_name="any")
    assert operator([example("Red shoe 2"), example("Blue shoe 2")]) == ["caption_placeholder", None]


def test_an_example_keeps_its_other_texts() -> None:
    one = example("image", "A red shoe")
    one.text.append(Text(role="label", text="shoe"))
    bare = example("image")
    bare.text.append(Text(role="body", text="A page about shoes."))
    measured = example("image")
    assert CaptionPlaceholder(op="caption_placeholder")([one, bare]) == [None, None]
    assert CaptionPlaceholder(op="caption_placeholder", remove=False)([measured]) == [None]
    assert [text.text for text in one.text] == ["A red shoe", "shoe"]
    assert one.meta.scores == {"placeholder_captions": 0.5}
    assert [text.role for text in bare.text] == ["body"]
    assert measured.meta.scores == {"placeholder_captions": 1}


@pytest.mark.timeout(10)
@pytest.mark.parametrize("piece", ["{", "[[", "1 ", "IMG_1", "the ", "featured "])
def test_megabytes_of_caption_cost_little(piece: str) -> None:
    CaptionPlaceholder(op="caption_placeholder")([example(piece * (1 << 20))])

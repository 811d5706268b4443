"""Items to judge, made by hand."""

from uni_moe.records import MediaRef, Sample, Slot, Turn


def item(name, question="What is it?", answer="cat", *, media=(), **changes):
    """Return a sample; `media` lists (kind, what the bytes are)."""
    refs = tuple(MediaRef(kind, f"sha-{data}", ("x",), 3, "media-000.tar") for kind, data in media)
    slots = tuple(Slot(ref.kind) for ref in refs)
    text = f"\n{question}" if slots else question
    fields = {
        "key": f"made/{name}",
        "id": f"id-{name}",
        "source": "made",
        "split": "test",
        "modality": refs[-1].kind if refs else "text",
        "task": "made/what",
        "turns": (Turn("user", (*slots, text)), Turn("assistant", (answer,))),
        "media": refs,
    }
    return Sample(**(fields | changes))


def pictures(answers, **changes):
    """Return items, each with a picture of its answer and bytes of its own."""
    return [
        item(f"{i:03d}", answer=answer, media=[("image", f"{answer}-{i}")], **changes)
        for i, answer in enumerate(answers)
    ]

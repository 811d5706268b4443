"""Workspaces with registered models, for the pages that tell of decisions."""

from tests.unit.registry.workspace import RULES, candidate
from uni_moe.artifacts import Layout
from uni_moe.audit import Asked
from uni_moe.registry.forgetting import forget
from uni_moe.registry.promoting import promote, rollback
from uni_moe.registry.write import register

ADA, BOB = Asked("ada", "ada says so"), Asked("bob", "bob says so")
HOSTILE = "<script>alert(1)</script> [x](http://evil.test) ![](http://evil.test/a.png) :red[y] $z$"


def put(layout, weights, share, reason=None):
    candidate(layout, weights, share)
    return register(layout, reason=reason or f"try {weights}", who="ada")


def of_one(root):
    """Make a workspace whose only version is live."""
    layout = Layout(root)
    put(layout, "a", 0.6)
    promote(layout, "1", RULES, ADA)
    return layout


def of_many(root):
    """Make one with a champion that came back, one refused, one waived, one forgotten."""
    layout = of_one(root)
    put(layout, "b", 0.5, HOSTILE)
    promote(layout, "2", RULES, Asked("bob", HOSTILE))
    put(layout, "c", 0.58)
    promote(layout, "3", RULES, BOB, waive=True)
    rollback(layout, RULES, ADA)
    put(layout, "d", 0.9)
    forget(layout, "4", BOB)
    return layout


def break_log(layout, number=2):
    """Change a byte of an entry, as nobody should."""
    file = layout.store / "audit.jsonl"
    lines = file.read_bytes().split(b"\n")
    lines[number - 1] = lines[number - 1].replace(b'"who":"', b'"who":"x')
    file.write_bytes(b"\n".join(lines))


def marked(app):
    """Return all that a page lets Markdown read; what st.text shows, nothing reads."""
    kinds = ("title", "subheader", "caption", "markdown", "error", "info", "success", "warning")
    return "\n".join(str(one.value) for kind in kinds for one in getattr(app, kind))

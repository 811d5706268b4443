"""Draws a neighbourhood of artifacts as DOT. Pure.

Names are data: they stand in labels alone, quoted, and never name a node.
"""

from __future__ import annotations

from uni_moe.registry.neighbourhood import Neighbour, Neighbourhood

# kind -> shape and colour; the shape says the kind where a colour is not seen
LOOKS = {
    "samples": ("cylinder", "#f0e442"),
    "validated": ("tab", "#f5e9a9"),
    "contract_report": ("note", "#f5e9a9"),
    "corpus": ("folder", "#e6c27a"),
    "foundation": ("box3d", "#a6d8f5"),
    "connector": ("cds", "#8fc7ea"),
    "expert": ("octagon", "#8fdcc1"),
    "model": ("box", "#f3a683"),
    "report": ("note", "#e4b8d2"),
    "export": ("component", "#d0d0d0"),
}
_OTHER = ("ellipse", "#dcdcdc")
LINE = "#7a7a7a"  # words of it, too: 4.3 : 1 on both pages; none reaches 4.5 on both
_LONGEST = 34  # letters of a name in the picture


def dot(found: Neighbourhood) -> str:
    """Return the picture as DOT: parents left of what was made from them."""
    import pydot

    graph = pydot.Dot("lineage", graph_type="digraph", rankdir="LR", bgcolor="transparent")
    graph.set("nodesep", "0.12")
    graph.set("ranksep", "0.3")
    graph.set_node_defaults(
        fontname="Helvetica",
        fontsize="16",
        margin=quoted("0.09,0.04"),
        style="filled",
        color=quoted(LINE),
    )
    graph.set_edge_defaults(
        color=quoted(LINE), fontcolor=quoted(LINE), fontsize="13", arrowsize="0.7"
    )
    places = {node.id: f"n{place}" for place, node in enumerate(found.nodes)}
    for node in found.nodes:
        graph.add_node(_node(pydot, node, places[node.id], is_centre=node.id == found.centre))
    for link in found.links:
        edge = pydot.Edge(places[link.parent], places[link.child])
        if link.through:
            edge.set("style", "dashed")
            edge.set("label", quoted(f"{link.through} between"))
        graph.add_edge(edge)
    text: str = graph.to_string()
    return text


def _node(pydot, node: Neighbour, place: str, *, is_centre: bool):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 - pydot is untyped
    shape, colour = LOOKS.get(node.kind or "", _OTHER)
    drawn = pydot.Node(place, label=quoted(_label(node)), shape=shape)
    drawn.set("fillcolor", quoted(colour if node.stage else "#ffffff"))
    drawn.set("fontcolor", quoted("#111111"))
    drawn.set("tooltip", quoted(f"{node.id[:12]} {node.name[:200]}"))
    if node.stage is None:
        drawn.set("style", quoted("filled,dashed"))
    if is_centre:
        drawn.set("penwidth", "4")
        drawn.set("color", quoted("#d55e00"))
    return drawn


def _label(node: Neighbour) -> str:
    name = node.name.removeprefix("artifacts/")
    name = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
    numbers = "".join(f", version {number}" for number in node.versions[-1:])
    gone = "" if node.stage else "\nits card is gone"
    return f"{name}{numbers}\n{node.id[:8]}{gone}"


def quoted(text: str) -> str:
    """Return text as a quoted string of DOT that says just this: no escapes, entities or HTML."""
    lines = (_plain(line) for line in text.split("\n"))
    return '"' + "\\n".join(lines) + '"'


def _plain(line: str) -> str:
    shown = "".join(letter if letter.isprintable() else " " for letter in line)
    return shown.replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;")

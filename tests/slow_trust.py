"""What trust comes to, the slow way: with networkx, and by trying all there is. A second opinion for small graphs.

Owns no rule of its own: it is docs/trust.md in the plainest words, with nothing of `readings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import networkx

#: (who vouches, whom for) → grains.
Vouches = Mapping[tuple[bytes, bytes], int]


def graph_of(vouches: Vouches) -> Any:
    """The vouches as a graph of networkx."""
    graph = networkx.DiGraph()
    for (voucher, vouchee), grains in vouches.items():
        graph.add_edge(voucher, vouchee, capacity=grains)
    return graph


def flow(graph: Any, source: bytes, sink: bytes) -> int:
    """The maximum flow between two."""
    if source not in graph or sink not in graph:
        return 0
    value = networkx.maximum_flow_value(graph, source, sink, flow_func=networkx.algorithms.flow.dinitz)
    assert isinstance(value, int), "networkx reckons in Python's own numbers"
    return value


def strength(graph: Any, source: bytes, sink: bytes) -> int:
    """The greatest number of grains such that vouches of no less lead from one to the other; 0 if there is none."""
    amounts = sorted({grains for _, _, grains in graph.edges.data("capacity")}, reverse=True)
    for least in amounts:
        strong = strong_part(graph, least)
        if source in strong and sink in strong and networkx.has_path(strong, source, sink):
            return least
    return 0


def strong_part(graph: Any, least: int) -> Any:
    """The vouches of at least so many grains."""
    return graph.edge_subgraph((a, b) for a, b, grains in graph.edges.data("capacity") if grains >= least)


def chain(graph: Any, source: bytes, sink: bytes) -> list[tuple[bytes, int]]:
    """The strongest chain: all the shortest ones of the greatest strength are listed, and the first of them taken."""
    least = strength(graph, source, sink)
    if not least:
        return []
    paths = networkx.all_shortest_paths(strong_part(graph, least), source, sink)
    path = min(paths, key=lambda path: path[::-1])
    return [(whom, graph.edges[by, whom]["capacity"]) for by, whom in pairwise(path)]


def ranking(graph: Any, source: bytes) -> list[tuple[bytes, int, int, bytes]]:
    """(peer, strength, vouches of the chain, who gave the last) of everybody who is reached, in order."""
    found = []
    for sink in graph:
        links = chain(graph, source, sink) if sink != source and source in graph else []
        if links:
            by = links[-2][0] if len(links) > 1 else source
            found.append((sink, min(grains for _, grains in links), len(links), by))
    return sorted(found, key=lambda row: (-row[1], row[2], row[0]))


def distances(graph: Any, source: bytes) -> dict[bytes, int]:
    """Over how many vouches each is reached, oneself over none."""
    return dict(networkx.single_source_shortest_path_length(graph, source))

"""Where channels lie: which tensor holds each identity, and at which position."""

from __future__ import annotations

import numpy as np

from gatedeploy.graph.channels import ChannelGraph, Ids


class Places:
    """The tensors of a graph as its operations make them, by number: weights come first, then what is computed.

    Attributes:
        tensor: (identities,) the number of the tensor that holds each identity; -1 for identities that are no more.
        position: (identities,) the place of each in its tensor.
        held: the channels of each tensor, in order.
        made: the numbers of the tensors that operations make, operation by operation.
    """

    def __init__(self, graph: ChannelGraph) -> None:
        self.tensor: Ids = np.full(graph.created, -1, dtype=np.int64)
        self.position: Ids = np.zeros(graph.created, dtype=np.int64)
        self.held: list[Ids] = []
        for value in (*graph.weight_values(), graph.image, *(operation.output for operation in graph.operations)):
            self.tensor[value.ids] = len(self.held)
            self.position[value.ids] = np.arange(len(value.ids))
            self.held.append(value.ids)
        self.made = range(len(self.held) - len(graph.operations), len(self.held))

    def in_order(self, ids: Ids) -> Ids:
        """These identities, each once, tensor by tensor as they lie there."""
        ids = np.unique(ids)
        return ids[np.lexsort((self.position[ids], self.tensor[ids]))]

    def by_tensor(self, ids: Ids) -> list[Ids]:
        """These identities, each once, as they lie in each tensor that holds some."""
        ids = self.in_order(ids)
        return np.split(ids, np.flatnonzero(np.diff(self.tensor[ids])) + 1)

    def runs(self, part: Ids) -> int:
        """In how many runs of neighbours these identities of one tensor lie, which come as they lie there."""
        return 1 + int((np.diff(self.position[part]) != 1).sum())

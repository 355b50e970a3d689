import numpy as np
import pytest

from gatedeploy.graph.channels import ChannelGraph
from gatedeploy.passes.base import Pass, Renaming, run_passes
from gatedeploy.specs import InputSpec


def empty() -> ChannelGraph:
    return ChannelGraph({}, frozenset(), InputSpec(3, 4, 4))


class First(Pass):
    kept = True

    def run(self, graph: ChannelGraph) -> None:
        graph.created += 1

    def ensures(self, graph: ChannelGraph) -> bool:
        return self.kept


class Second(First):
    requires = (First,)


class Broken(First):
    kept = False


def test_passes_run_in_order() -> None:
    graph = empty()
    run_passes(graph, [First(), Second()])
    assert graph.created == 2


def test_a_pass_does_not_run_before_what_it_requires() -> None:
    with pytest.raises(RuntimeError, match="Second must run after First"):
        run_passes(empty(), [Second(), First()])


def test_a_pass_that_breaks_its_promise_is_named() -> None:
    with pytest.raises(RuntimeError, match="Broken did not leave the graph as it promises"):
        run_passes(empty(), [Broken()])


def test_a_renaming_holds_for_the_operations_and_outputs_behind_it() -> None:
    graph = empty()
    old, new = graph.new(2, 1), graph.new(2, 1)
    graph.outputs = {"a": old, "b": [new, {"c": old}]}
    renaming = Renaming(graph)
    renaming.rename(old.ids, new.ids[::-1])
    renaming.finish()
    swapped = new.ids[::-1].tolist()
    assert graph.outputs["a"].ids.tolist() == swapped
    assert graph.outputs["b"][0].ids.tolist() == new.ids.tolist()
    assert graph.outputs["b"][1]["c"].ids.tolist() == swapped
    assert np.array_equal(renaming.now[new.ids], new.ids)

"""From a gated network's program to that of the collapsed one: which passes run, and what they chose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gatedeploy.graph.build import channel_graph
from gatedeploy.graph.choices import Choices, SiteChoice, choices, executed_macs, fewest_macs, sites
from gatedeploy.graph.precompute import precomputed
from gatedeploy.graph.prices import Prices
from gatedeploy.passes.absorb_scales import AbsorbScales
from gatedeploy.passes.align_counts import AlignCounts
from gatedeploy.passes.base import Pass, run_passes
from gatedeploy.passes.choose_layout import ChooseLayout
from gatedeploy.passes.choose_reads import ChooseReads
from gatedeploy.passes.collect_sums import CollectSums
from gatedeploy.passes.complete_mixes import CompleteMixes
from gatedeploy.passes.emit import emit
from gatedeploy.passes.fold_norms import FoldNorms
from gatedeploy.passes.follow_order import FollowOrder
from gatedeploy.passes.order_channels import OrderChannels
from gatedeploy.passes.partition_sums import PartitionSums
from gatedeploy.passes.prune_channels import PruneChannels
from gatedeploy.passes.resolve_gates import ResolveGates
from gatedeploy.passes.share_duplicates import ShareDuplicates
from gatedeploy.passes.unite_channelwise import UniteChannelwise
from gatedeploy.program import Program

PRUNING: tuple[type[Pass], ...] = (ResolveGates, PruneChannels, ShareDuplicates, UniteChannelwise, FoldNorms)
"""What leaves the fewest multiply-adds."""

PASSES: tuple[type[Pass], ...] = (*PRUNING, ChooseLayout, FollowOrder)
"""The same, in an order of channels that needs few copies: what is done without prices."""


@dataclass(frozen=True)
class Lowered:
    """A collapsed network that has not been verified yet.

    Args:
        program: in float64.
        barriers: operators that no rule knows in the form in which they are called, with how often each occurs.
        extra_macs: how many of its multiply-adds are traded for speed.
        layout: what was chosen by price; empty where nothing was.
    """

    program: Program
    barriers: dict[str, int]
    extra_macs: int = 0
    layout: tuple[SiteChoice, ...] = ()


def lower(program: Program, prices: Prices | None = None) -> Lowered:
    """Collapse `program`: for the fewest multiply-adds, or with prices for the least time."""
    graph = channel_graph(precomputed(program))
    if prices is None:
        run_passes(graph, [step() for step in PASSES])
        return Lowered(emit(graph), dict(graph.barriers))
    run_passes(graph, passes_to_sums(prices))
    plain, fewest = choices(graph), fewest_macs(graph)
    run_passes(graph, passes_by_price(prices))
    chosen = choices(graph)
    if _ms(chosen) > _ms(plain):  # whole vectors cost that much, or the search had not seen what they cost it
        sums_apart = channel_graph(precomputed(program))
        run_passes(sums_apart, [*passes_to_sums(prices), *passes_to_whole_vectors(prices)])
        plain = choices(sums_apart)
        if _ms(chosen) > _ms(plain):
            graph, chosen = sums_apart, plain
    extra = executed_macs(graph) - fewest
    return Lowered(emit(graph, prices), dict(graph.barriers), extra, sites(plain, chosen))


def _ms(found: Choices) -> float:
    """What all of it is predicted to cost."""
    return sum(tensor.ms for _, tensor in found)


def passes_to_sums(prices: Prices) -> Sequence[Pass]:
    """The passes that write the network as sums, each in a tensor of its own."""
    pruning = [step() for step in PRUNING]
    ordered = (OrderChannels(), FollowOrder())
    return [*pruning, CollectSums(), CompleteMixes(), AbsorbScales(), *ordered, ChooseReads(prices)]


def passes_by_price(prices: Prices) -> Sequence[Pass]:
    """The passes behind them that choose a layout by what it costs."""
    return [PartitionSums(prices), *passes_to_whole_vectors(prices)]


def passes_to_whole_vectors(prices: Prices) -> Sequence[Pass]:
    """The passes behind a layout that give its tensors the channels and the order that kernels like."""
    return [UniteChannelwise(), OrderChannels(), AlignCounts(prices), FollowOrder(), ChooseReads(prices)]

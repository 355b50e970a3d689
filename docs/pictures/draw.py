"""Draw the pictures of docs/methods.md; `python docs/pictures/draw.py` writes them anew, beside this file.

One language for all: the picture on the left, the heads on the right, a lane for each task in its colour, grey for what
tasks share, dashes for what is not there when it is deployed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

WIDTH = 760
FONT = "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif"
INK, PAPER, EDGE = "#1f2328", "#ffffff", "#d0d7de"
STROKE = {"seg": "#0072b2", "depth": "#c04f00", "normals": "#007a58", "shared": "#59636e"}
FILL = {"seg": "#dcecf8", "depth": "#fbe6d8", "normals": "#d9f0e7", "shared": "#e6eaef"}
TASKS = ("seg", "depth", "normals")
ROWS = {"seg": 46, "depth": 100, "normals": 154, "shared": 214}
OF_TASKS, MIDDLE, LOW = [ROWS[task] for task in TASKS], ROWS["depth"], ROWS["shared"]
BOX, TALL = 66, 30  # a box
COLUMNS = (102, 266, 430)  # where stages begin
HEAD = 632  # where heads do

Point = tuple[int, int]


class Picture:
    """An SVG file that grows.

    Args:
        height: in pixels, the caption not counted.
        caption: what the marks mean, line by line.
    """

    def __init__(self, height: int, *caption: str) -> None:
        self.height, self.caption = height, caption
        self.parts: list[str] = []

    def text(self, at: Point, words: str, colour: str = INK, anchor: str = "middle") -> None:
        """Words whose middle, or start, is at a point."""
        place = f'x="{at[0]}" y="{at[1] + 4}" text-anchor="{anchor}"'
        self.parts.append(f'<text {place} font-size="13" fill="{colour}">{escape(words)}</text>')

    def box(self, x: int, y: int, width: int, words: str, of: str, gone: bool = False, tall: int = TALL) -> None:
        """Layers: their left side, their middle, and whose they are."""
        rest = 'fill="none" stroke-dasharray="4 4"' if gone else f'fill="{FILL[of]}"'
        size = f'width="{width}" height="{tall}" rx="5"'
        self.parts.append(f'<rect x="{x}" y="{y - tall // 2}" {size} {rest} stroke="{STROKE[of]}"/>')
        self.text((x + width // 2, y), words, STROKE[of] if gone else INK)

    def line(
        self, points: Sequence[Point], of: str, gone: bool = False, arrow: bool = True, thick: float = 1.5
    ) -> None:
        """A wire through some points."""
        path = " ".join(f"{x},{y}" for x, y in points)
        rest = f' marker-end="url(#{of})"' if arrow else ""
        rest += ' stroke-dasharray="4 4"' if gone else ""
        style = f'fill="none" stroke="{STROKE[of]}" stroke-width="{thick:g}"'
        self.parts.append(f'<polyline points="{path}" {style}{rest}/>')

    def dot(self, at: Point, of: str) -> None:
        """Where wires are joined."""
        self.parts.append(f'<circle cx="{at[0]}" cy="{at[1]}" r="3" fill="{STROKE[of]}"/>')

    def mark(self, at: Point, sign: str, of: str) -> None:
        """Something that is computed of what comes in; ◆ is a choice."""
        x, y = at
        if sign == "◆":
            self.parts.append(f'<path d="M{x - 12} {y}l12 -12 12 12 -12 12z" fill="{STROKE[of]}"/>')
        else:
            self.parts.append(f'<circle cx="{x}" cy="{y}" r="11" fill="{PAPER}" stroke="{STROKE[of]}"/>')
            self.text(at, sign, STROKE[of])

    def feed(self, rows: Sequence[int], to: int = COLUMNS[0], gone: Sequence[int] = (), words: str = "picture") -> None:
        """The picture, and its wires to the first boxes of some rows."""
        middle, grey = (min(rows) + max(rows)) // 2, STROKE["shared"]
        self.line([(68, middle), (80, middle)], "shared", arrow=False)
        if len(rows) > 1:
            self.line([(80, min(rows)), (80, max(rows))], "shared", arrow=False)
        for y in rows:
            self.line([(80, y), (to, y)], "shared", gone=y in gone)
        frame = f'width="48" height="40" rx="3" fill="{FILL["shared"]}" stroke="{grey}"'
        self.parts += [
            f'<rect x="20" y="{middle - 20}" {frame}/>',
            f'<circle cx="56" cy="{middle - 9}" r="5" fill="{grey}"/>',
            f'<path d="M23 {middle + 16}l14 -22 10 14 6 -7 12 15z" fill="{grey}"/>',
        ]
        self.text((44, middle + 32), words, grey)

    def stages(self, of: str, y: int, until: int, gone: bool = False, meet: Sequence[int] = ()) -> None:
        """Three stages and the wires from each to the next, the last one's until some place; none behind `meet`."""
        for stage, x in enumerate(COLUMNS):
            self.box(x, y, BOX, f"stage {stage + 1}", of, gone)
            end = (*COLUMNS[1:], until)[stage]
            if stage not in meet:
                self.line([(x + BOX, y), (end, y)], of, gone, arrow=end in (HEAD, *COLUMNS))

    def with_heads(self) -> Picture:
        """The same with a head at the end of each task's lane."""
        for task in TASKS:
            self.box(HEAD, ROWS[task], 106, f"{task} head", task)
        return self

    def svg(self) -> str:
        """The file's text."""
        whole = self.height + 12 + 19 * len(self.caption)
        for number, words in enumerate(self.caption):
            self.text((20, self.height + 10 + 19 * number), words, anchor="start")
        shape = 'viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" orient="auto"'
        arrows = [
            f'<marker id="{of}" {shape}><path d="M0 0l8 4-8 4z" fill="{colour}"/></marker>'
            for of, colour in STROKE.items()
        ]
        size = f'width="{WIDTH}" height="{whole}" viewBox="0 0 {WIDTH} {whole}"'
        panel = f'width="{WIDTH - 1}" height="{whole - 1}" rx="10" fill="{PAPER}" stroke="{EDGE}"'
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{FONT}" role="img">',
                f"<title>{escape(' '.join(self.caption))}</title>",
                *("<defs>", *arrows, "</defs>", f'<rect x="0.5" y="0.5" {panel}/>', *self.parts, "</svg>\n"),
            ]
        )


def single() -> Picture:
    """Single-task networks."""
    to = Picture(190, "Nothing is shared: each task has a network of its own, trained by itself.")
    to.feed(OF_TASKS)
    for task in TASKS:
        to.stages(task, ROWS[task], HEAD)
    return to.with_heads()


def mtl() -> Picture:
    """Uniform multi-task learning."""
    to = Picture(190, "Grey: one encoder, which all tasks share whole. Only the heads are a task's own.")
    to.feed([MIDDLE])
    to.stages("shared", MIDDLE, HEAD - 60)
    to.dot((HEAD - 60, MIDDLE), "shared")
    for y in OF_TASKS:
        to.line([(HEAD - 60, MIDDLE), (HEAD - 60, y), (HEAD, y)], "shared")
    return to.with_heads()


def interrogate() -> Picture:
    """InterroGate, as it is trained."""
    to = Picture(
        *(250, "◆ gate: takes, channel by channel, the task's own feature (from the left) or the shared one (grey)."),
        "Σ mixes what the tasks took. The shared branch goes on from the mix, and ends at the last gates.",
    )
    to.feed([*OF_TASKS, LOW])
    for x, following in zip(COLUMNS, (*COLUMNS[1:], HEAD), strict=True):
        offered, gates, taken = x + BOX + 18, x + BOX + 42, x + BOX + 65
        to.box(x, LOW, BOX, "layer", "shared")
        to.line([(x + BOX, LOW), (offered, LOW), (offered, ROWS["seg"] + 22)], "shared", arrow=False)
        if following != HEAD:
            to.line([(taken, ROWS["seg"]), (taken, LOW - 11)], "shared")
            to.line([(taken + 11, LOW), (following, LOW)], "shared")
            to.mark((taken, LOW), "Σ", "shared")
        for task in TASKS:
            y = ROWS[task]
            to.box(x, y, BOX, "layer", task)
            to.line([(x + BOX, y), (gates - 10, y)], task)
            to.line([(offered, y + 22), (gates, y + 22), (gates, y + 11)], "shared")
            to.line([(gates, y), (following, y)], task)
            to.mark((gates, y), "◆", task)
            if following != HEAD:
                to.dot((taken, y), task)
    return to.with_heads()


def behind_encoders(sign: str, own: Sequence[str], public: Sequence[str], *caption: str) -> Picture:
    """Safe MTL with gates behind encoders; `own` and `public` are the tasks that take theirs and the shared one."""
    to = Picture(250, *caption)
    offered, gates = COLUMNS[2] + BOX + 24, COLUMNS[2] + BOX + 52
    to.feed([*OF_TASKS, LOW], gone=[ROWS[task] for task in TASKS if task not in own])
    to.stages("shared", LOW, offered)
    to.line([(offered, LOW), (offered, ROWS[public[0]] + 22)], "shared", arrow=False)
    for task in TASKS:
        y = ROWS[task]
        to.stages(task, y, gates - 11, gone=task not in own)
        if task in public:
            to.line([(offered, y + 22), (gates, y + 22), (gates, y + 12)], "shared")
        to.line([(gates, y), (HEAD, y)], task)
        to.mark((gates, y), sign, task)
    return to.with_heads()


def behind_decoders(sign: str, own: Sequence[str], public: Sequence[str], *caption: str) -> Picture:
    """The same with gates behind decoders."""
    rows = {task: 40 + 72 * number for number, task in enumerate(TASKS)}
    to, low = Picture(294, *caption), 258
    start, wide, offered, heads, gates = 118, 140, 304, 350, 554
    to.feed([*rows.values(), low], start, gone=[rows[task] for task in TASKS if task not in own])
    to.box(start, low, wide, "shared encoder", "shared")
    to.line([(start + wide, low), (offered, low), (offered, rows[public[0]] + 34)], "shared", arrow=False)
    for task, y in rows.items():
        to.box(start, y, wide, f"{task} encoder", task, task not in own)
        to.line([(start + wide, y), (heads, y)], task, task not in own)
        to.box(heads, y, wide, f"own {task} head", task, task not in own, 28)
        to.line([(heads + wide, y), (gates, y), (gates, y + 5)], task, task not in own)
        to.box(heads, y + 34, wide, f"public {task} head", "shared", task not in public, 28)
        to.line([(heads + wide, y + 34), (gates, y + 34), (gates, y + 29)], "shared", task not in public)
        if task in public:
            to.line([(offered, y + 34), (heads, y + 34)], "shared")
        to.line([(gates, y + 17), (gates + 60, y + 17)], task)
        to.mark((gates, y + 17), sign, task)
        to.text((gates + 68, y + 17), task, STROKE[task], anchor="start")
    return to


def hold_out() -> Picture:
    """The bi-level form."""
    to = Picture(140, "Weights and gates take steps in turns. s is the share held out, from which gates alone learn.")
    for y, share, what, of in ((36, "1 − s", "weights", "seg"), (100, "s", "gates", "depth")):
        to.box(130, y, 180, f"{share} of the pictures", "shared")
        to.line([(310, y), (420, y)], "shared")
        to.box(420, y, 180, f"a step of the {what}", of)
    to.feed([36, 100], 130, words="pictures")
    to.line([(490, 51), (490, 85)], "seg")
    to.line([(530, 85), (530, 51)], "depth")
    return to


def side_by_side(width: int, sign: str, stages: Sequence[int], *caption: str) -> Picture:
    """A copy of the backbone for each task, and units behind some stages, to which every task's feature goes."""
    to = Picture(190, *caption)
    to.feed(OF_TASKS)
    for task in TASKS:
        to.stages(task, ROWS[task], HEAD, meet=stages)
    for stage in stages:
        left, right = COLUMNS[stage] + BOX, COLUMNS[stage] + BOX + width
        for source in TASKS:  # its own by a thicker wire
            for task in TASKS:
                ends, thick = [(left, ROWS[source]), (right, ROWS[task])], 2.5 if source == task else 1
                to.line(ends, source, arrow=False, thick=thick)
        for task in TASKS:
            y = ROWS[task]
            to.line([(right, y), ((*COLUMNS[1:], HEAD)[stage], y)], task)
            if len(sign) > 1:
                to.box(right, y, 38, sign, task)
            else:
                to.mark((right, y), sign, task)
    return to.with_heads()


def afa() -> Picture:
    """AFA."""
    first = "× weighs the task's own feature and the mean of the others', channel by channel and then pixel by pixel."
    last = "The weights (grey) are computed from all tasks' features, for each picture anew."
    to, left, right = side_by_side(82, "×", (2,), first, last), COLUMNS[2] + BOX + 8, COLUMNS[2] + BOX + 82
    to.height = 242
    to.line([(left, ROWS["seg"]), (left, LOW - 15)], "shared")
    for y, below in zip(OF_TASKS, (*(y - 11 for y in OF_TASKS[1:]), LOW - 15), strict=True):
        to.dot((left, y), "shared")
        to.line([(right, below), (right, y + 12)], "shared")
    to.box(left - 16, LOW, 120, "weights", "shared")
    return to


def mtan() -> Picture:
    """MTAN."""
    first = "att makes a task's mask of u and of what was refined before; × puts p, the stage's end, under the mask."
    last = "refine has the same weights for all tasks. The backbone (grey) goes on from p, and asks no task."
    to = Picture(256, first, last)
    top, pitch, rows = 40, 184, {task: 104 + 52 * number for number, task in enumerate(TASKS)}
    to.feed([top])
    for stage in range(3):
        x = COLUMNS[0] + pitch * stage
        u, look, p, under = x + 62, x + 78, x + 136, x + 156
        to.box(x, top, 50, "layers", "shared")
        to.line([(x + 50, top), (x + 74, top)], "shared")
        to.box(x + 74, top, 50, "block", "shared")
        to.line([(x + 124, top), (x + pitch if stage < 2 else p, top)], "shared", arrow=stage < 2)
        for at, name, end in ((u, "u", rows["normals"] - 7), (p, "p", rows["normals"] - 16)):
            to.dot((at, top), "shared")
            to.text((at, top - 14), name, STROKE["shared"])
            to.line([(at, top), (at, end)], "shared", arrow=False)
        for task, y in rows.items():
            to.line([(u, y - 7), (look, y - 7)], "shared")
            to.box(look, y, 36, "att", task)
            to.line([(look + 36, y), (under - 11, y)], task)
            to.line([(p, y - 16), (under, y - 16), (under, y - 11)], "shared")
            if stage < 2:
                to.line([(under, y + 6), (look + pitch, y + 6)], task)
                to.box(x + pitch + 2, y + 6, 46, "refine", "shared", tall=22)
            else:
                to.line([(under, y), (HEAD + 18, y)], task)
                to.box(HEAD + 18, y, 96, f"{task} head", task)
            to.mark((under, y), "×", task)
    return to


def adashare() -> Picture:
    """AdaShare, as it is deployed."""
    first = "A column is one block of one backbone: its weights serve all tasks. A task runs it or takes its shortcut"
    to = Picture(206, first, "(dashed). What all tasks begin with alike, here block 1, is computed once.")
    runs = {"seg": (True, False, True), "depth": (False, True, True), "normals": (True, True, False)}
    fork, columns = COLUMNS[0] + BOX + 20, [COLUMNS[0] + BOX + 50 + 132 * block for block in range(3)]
    for x in columns:
        to.box(x - 7, 106, BOX + 14, "", "shared", tall=172)
    to.feed([MIDDLE])
    to.box(COLUMNS[0], MIDDLE, BOX, "block 1", "shared")
    to.line([(COLUMNS[0] + BOX, MIDDLE), (fork, MIDDLE)], "shared", arrow=False)
    for task in TASKS:
        y = ROWS[task]
        to.line([(fork, MIDDLE), (fork, y), (columns[0], y)], task)
        for block, (x, run) in enumerate(zip(columns, runs[task], strict=True)):
            to.box(x, y, BOX, f"block {block + 2}", task, not run)
            if not run:
                to.line([(x, y), (x, y + 21), (x + BOX, y + 21), (x + BOX, y)], task, arrow=False)
            to.line([(x + BOX, y), ((*columns[1:], HEAD)[block], y)], task)
    to.dot((fork, MIDDLE), "shared")
    return to.with_heads()


def moe() -> Picture:
    """A mixture of experts."""
    first = (
        "Each task is a pass of its own through the same weights (grey). ◆, told which task asks, sends what it sees"
    )
    to = Picture(214, first, "to a few of the experts; + weighs and adds what these make of it.")
    to.feed(OF_TASKS)
    takes = {"seg": (0, 1), "depth": (1, 3), "normals": (2, 3)}, {"seg": (1, 2), "depth": (0, 2), "normals": (0, 3)}
    experts, pitch = [34 + 46 * number for number in range(4)], 262
    for block, taken in enumerate(takes):
        x = COLUMNS[0] + pitch * block
        choose, inside, add = x + BOX + 26, x + BOX + 62, x + BOX + 166
        for y in experts:
            to.box(inside, y, 68, "expert", "shared", tall=24)
        for task in TASKS:
            y = ROWS[task]
            to.box(x, y, BOX, "layers", "shared")
            to.line([(x + BOX, y), (choose - 12, y)], task, arrow=False)
            for expert in taken[task]:
                to.line([(choose, y), (inside, experts[expert])], task)
                to.line([(inside + 68, experts[expert]), (add - 11, y)], task, arrow=False)
            to.mark((choose, y), "◆", task)
            to.mark((add, y), "+", task)
            to.line([(add + 11, y), ((x + pitch, HEAD)[block], y)], task)
    return to.with_heads()


BLENDS = "by one number that is learned."
TAKEN = ("◆", ("normals",), ("seg", "depth"))
FIXED = "drawn by chance in training, then fixed."
GONE = "Deployed, what nobody took (dashed) is gone: here seg and depth take the shared encoder."

PICTURES: dict[str, Callable[[], Picture]] = {
    **{"single": single, "mtl": mtl, "interrogate": interrogate, "hold_out": hold_out},
    "smtl": lambda: behind_encoders(
        *("+", TASKS, TASKS, f"+ blends the task's own last feature and the shared one, {BLENDS}"),
        "Nothing is mixed: no task's feature goes into the shared encoder.",
    ),
    "l_smtl": lambda: behind_encoders(*TAKEN, f"◆ takes the task's own encoder or the shared one; {FIXED}", GONE),
    "smtl_c": lambda: behind_decoders("+", TASKS, TASKS, f"+ blends two predictions for the task, {BLENDS}"),
    "l_smtl_c": lambda: behind_decoders(
        *TAKEN, f"◆ takes one of two predictions, and so an encoder with its head; {FIXED}", GONE
    ),
    "cross_stitch": lambda: side_by_side(
        *(64, "+", (0, 1, 2)),
        "+ adds all tasks' features, each channel times a number that is learned; at first its own counts most.",
    ),
    "nddr": lambda: side_by_side(
        *(44, "1×1", (0, 1, 2)),
        "1×1: a convolution, norm and ReLU, which make a task's feature of all tasks' channels, joined.",
    ),
    **{"mtan": mtan, "adashare": adashare, "afa": afa, "moe": moe},
}


def main(folder: Path = Path(__file__).parent) -> None:
    """Write all pictures into a folder."""
    for name, draw in PICTURES.items():
        (folder / f"{name}.svg").write_text(draw().svg(), encoding="utf-8")


if __name__ == "__main__":
    main()

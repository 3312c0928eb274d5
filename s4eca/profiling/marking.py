"""Marks around the parts of the network, put there for the time of a measurement; its source knows nothing of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from s4eca.lit.referring import ReferringModule
from s4eca.profiling.clock import Clock
from s4eca.profiling.parts import CACHE, DECODER, FUSION, LOSS, METHOD, REST, TOWERS


class Marks:
    """Puts marks around a module's parts and takes them off again.

    A method acts inside the towers' walk through its `tap`, so its time is taken out of theirs. Inside a compiled block
    nothing can be marked: there the method's time is in the towers'.

    Args:
        module: whose network is marked.
        clock: is told what runs.
    """

    def __init__(self, module: ReferringModule, clock: Clock) -> None:
        self._module, self._clock = module, clock
        self._undo: list[Callable[[], None]] = []

    @property
    def compiled(self) -> bool:
        """Whether blocks are compiled."""
        return self._module.segmenter.runner.compiled

    def put(self) -> None:
        """Puts the marks on."""
        module, segmenter = self._module, self._module.segmenter
        for tower in (segmenter.text, segmenter.vision):
            for name in ("begin", "end", *(() if self.compiled else ("step",))):
                self._around(tower, name, TOWERS[tower.kind])
        if self.compiled:
            self._around_blocks()
        else:
            self._around(segmenter.method, "tap", METHOD)
            self._around(segmenter.method, "side", METHOD)
        self._around(segmenter.fusion, "stage" if segmenter.fusion.feedback else "forward", FUSION)
        for norm in segmenter.norms:
            self._around(norm, "forward", DECODER)
        self._around(segmenter.decoder, "features", DECODER, and_after=True)
        self._around(segmenter, "forward", REST)
        self._around(module.loss, "forward", LOSS)
        if module.features is not None:
            self._around(module.features, "encode", CACHE)

    def take_off(self) -> None:
        """Takes the marks off."""
        while self._undo:
            self._undo.pop()()

    @contextmanager
    def eager(self) -> Iterator[None]:
        """Inside, blocks run without having been compiled, and the method is marked too; there are marks before."""
        runner: Any = self._module.segmenter.runner
        if not runner.compiled:
            yield
            return
        self.take_off()
        take = runner._take
        runner._take, runner.compiled = runner._step, False
        self.put()
        try:
            yield
        finally:
            self.take_off()
            runner._take, runner.compiled = take, True
            self.put()

    def _around(self, owner: Any, name: str, part: str, and_after: bool = False) -> None:
        """Marks a method; with `and_after` what follows in the function around it belongs to the part too."""
        call, clock = getattr(owner, name), self._clock

        def marked(*arguments: Any, **named: Any) -> Any:
            clock.enter(part)
            try:
                return call(*arguments, **named)
            finally:
                clock.leave()
                if and_after and clock.part == REST:
                    clock.become(part)

        self._replace(owner, name, marked)

    def _around_blocks(self) -> None:
        runner: Any = self._module.segmenter.runner
        take, clock = runner._take, self._clock

        def marked(tower: Any, *arguments: Any, **named: Any) -> Any:
            clock.enter(TOWERS[tower.kind])
            try:
                return take(tower, *arguments, **named)
            finally:
                clock.leave()

        self._replace(runner, "_take", marked)

    def _replace(self, owner: Any, name: str, value: Any) -> None:
        own = vars(owner).get(name)
        setattr(owner, name, value)
        self._undo.append(lambda: delattr(owner, name) if own is None else setattr(owner, name, own))


def where_the_method_is(module: ReferringModule) -> str | None:
    """Returns why the method's row cannot hold all of its time, None where it does."""
    segmenter = module.segmenter
    if segmenter.runner.compiled:
        return "the method is compiled together with the towers' blocks; its forward pass is in their rows"
    if any(parameter.requires_grad for tower in (segmenter.text, segmenter.vision) for parameter in tower.parameters()):
        return f"what tuning={segmenter.method.name} learns inside the towers' layers runs in the towers' rows"
    return None

"""`flowprep verify`: check, repair, compute again, tell. Composes verify and run, as demo does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from flowprep.records import Finding
from flowprep.run.executors import Resources
from flowprep.run.progress import make_display
from flowprep.run.rebuild import Order, Repaired
from flowprep.run.repair import repair
from flowprep.run.tell import repair_as_dict, tell_repair
from flowprep.storage import Place
from flowprep.verify.check import verify
from flowprep.verify.recompute import Compared, findings_of, recompute
from flowprep.verify.tell import (
    list_findings,
    recomputed_as_dict,
    tell_as_json,
    tell_findings,
    tell_recomputed,
    watching,
)


@dataclass(kw_only=True)
class Inspection:
    """What the user asked for, and what came of it."""

    shards: Place
    deep: bool
    n_recompute: int
    seed: int
    src: str
    as_json: bool
    debug: bool
    findings: list[Finding] = field(default_factory=list)
    compared: list[Compared] = field(default_factory=list)
    repaired: Repaired | None = None

    def check(self) -> list[Finding]:
        """All findings as of now. Raises FlowprepError when there is no dataset."""
        with watching("verify", quiet=self.as_json) as watch:
            self.findings = verify(self.shards, deep=self.deep, watch=watch)
        if self.n_recompute:
            with watching("recompute", quiet=self.as_json) as watch:
                self.compared = recompute(
                    self.shards, self.n_recompute, seed=self.seed, src=self.src, watch=watch
                )
        self.findings += findings_of(self.compared)
        return self.findings

    def repair(self, resources: Resources) -> None:
        """Check, make what is damaged again, and check that."""
        show: Callable[[list[Finding]], None] = list_findings
        order = Order(
            out=str(self.shards),
            src=self.src,
            resources=resources,
            check=self.check,
            show=(lambda findings: None) if self.as_json else show,
        )
        self.repaired = repair(order, make_display(log_json=False, quiet=self.as_json))
        if not self.as_json:
            tell_repair(self.repaired, self.debug)
        if self.repaired.found:
            self.check()
        else:
            self.findings = []

    def tell(self) -> None:
        """Print what is left."""
        if self.as_json:
            more: dict[str, Any] = {}
            if self.n_recompute:
                more["recomputed"] = recomputed_as_dict(self.compared)
            if self.repaired:
                more["repair"] = repair_as_dict(self.repaired)
            tell_as_json(self.findings, self.shards, self.deep, **more)
            return
        if self.n_recompute:
            tell_recomputed(self.compared)
        tell_findings(self.findings, self.shards, self.deep)

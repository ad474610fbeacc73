"""What machines cost, from a small dated table that the user can replace, and what a sweep on them would."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import yaml
from pydantic import Field, ValidationError

from grover_dist.config import Config, Section
from grover_dist.errors import UserError, nearest
from grover_dist.training.plan import CandidatePlan

SHIPPED = Path(__file__).with_name("prices.yaml")


class MachinePrice(Section):
    """gpu: as plan's --hardware names it. cpus: vCPUs."""

    gpu: str | None
    gpus: int = Field(ge=0)
    cpus: int = Field(ge=1)
    per_hour: float = Field(ge=0)


class Prices(Section):
    date: date
    currency: str
    source: str
    machines: dict[str, MachinePrice]
    always_per_hour: dict[str, float] = Field(default_factory=dict)
    idle_per_hour: dict[str, float] = Field(default_factory=dict)

    def machine(self, name: str) -> MachinePrice:
        if name not in self.machines:
            raise UserError(
                "the price table has no such machine",
                got=name,
                expected=nearest(name, self.machines),
                hint="add it to a table of your own, and name that in resources.prices",
            )
        return self.machines[name]


def read_prices(path: Path | None) -> Prices:
    """The shipped table, or the user's. Raises UserError that names every fault of the file."""
    path = path or SHIPPED
    try:
        return Prices.model_validate(yaml.safe_load(path.read_text()))
    except OSError as error:
        raise UserError("the price table cannot be read", where=path, got=error.strerror) from None
    except yaml.YAMLError as error:
        raise UserError("the price table is not valid YAML", where=path, got=" ".join(str(error).split())) from None
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'the file'}: {fault['msg']}" for fault in error.errors())
        raise UserError("the price table is not complete", where=path, got=faults, hint=f"take {SHIPPED} as the pattern") from None


@dataclass(frozen=True)
class Money:
    """A sweep on one kind of machine. machines: as many as take all candidates at once. hours: until the last one is trained."""

    machine_hours: float
    machines: int
    hours: float
    workers: float  # in the table's currency, as the next
    rest: float


def sweep_money(config: Config, candidates: Sequence[CandidatePlan], machine: MachinePrice, prices: Prices) -> Money | None:
    """Pretraining of every candidate to its whole budget. None where a rank does not fit on the machine."""
    resources = config.resources
    by_gpu = machine.gpus > 0
    rank_share = (resources.gpus_per_rank or 1.0) if by_gpu else resources.cpus_per_rank
    ranks_a_machine = math.floor((machine.gpus if by_gpu else machine.cpus) / rank_share + 1e-9)
    if ranks_a_machine < 1:
        return None
    # Machines are paid whole: a gang of 3 ranks on machines of 2 takes two of them, one half of the last is idle.
    gang_machines = (
        math.ceil(resources.ranks_per_candidate / ranks_a_machine)
        if resources.ranks_per_candidate >= ranks_a_machine
        else 1.0 / (ranks_a_machine // resources.ranks_per_candidate)
    )
    machine_hours = sum(candidate.hours for candidate in candidates) * gang_machines
    hours = max(candidate.hours for candidate in candidates)
    return Money(
        machine_hours=machine_hours,
        machines=math.ceil(len(candidates) * gang_machines - 1e-9),
        hours=hours,
        workers=machine_hours * machine.per_hour,
        rest=hours * sum(prices.always_per_hour.values()),
    )


def describe_money(
    config: Config, candidates: Sequence[CandidatePlan], prices: Prices, *, hardware: str, machine: str | None
) -> Iterator[str]:
    """Lines for the named machine, or for every machine of the table with the hardware's GPU."""
    names = [machine] if machine else [name for name, price in prices.machines.items() if price.gpu == hardware]
    yield f"money     of pretraining alone, {prices.source}, noted {prices.date:%Y-%m-%d} (no offer: look the prices up)"
    if not names:
        of_gpus = ", ".join(dict.fromkeys(price.gpu for price in prices.machines.values() if price.gpu))
        yield f"  no machine of the table has the hardware '{hardware}': give --hardware ({of_gpus})"
        yield f"  or --machine ({', '.join(prices.machines)})"
    for name in names:
        price = prices.machine(name)
        found = sweep_money(config, candidates, price, prices)
        holds = f"{price.gpus} {price.gpu}" if price.gpus else f"{price.cpus} CPUs"
        start = f"  {name} ({holds}, {price.per_hour:,.2f} {prices.currency} an hour): "
        if found is None:
            yield f"{start}a rank does not fit; see resources.gpus_per_rank and resources.cpus_per_rank"
            continue
        at_once = f"{found.machines} machine{'s' if found.machines > 1 else ''} at once"
        rest = ", ".join(prices.always_per_hour) or "nothing else"
        yield (
            f"{start}{found.machine_hours:,.1f} machine hours = {found.workers:,.2f} {prices.currency}; "
            f"on {at_once} {found.hours:,.1f} h, and {found.rest:,.2f} for {rest}"
        )
    if prices.idle_per_hour:
        idle = 24 * sum(prices.idle_per_hour.values())
        kept = ", ".join(prices.idle_per_hour)
        yield f"  nothing running: {idle:,.2f} {prices.currency} a day ({kept}, and what is stored) until `terraform destroy`"

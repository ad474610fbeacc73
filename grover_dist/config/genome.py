"""The genome, its vocabularies, its split and its windows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from grover_dist.config.section import Fraction, Section

MAX_CYCLES = 65_000  # boundary levels are uint16 and 65,535 means "never merged"


class TransposonSettings(Section):
    """Families of diverged copies planted in the synthetic genome."""

    families: int = Field(2, ge=0)
    length_bp: int = Field(300, ge=20)
    share: Fraction = 0.45  # of the genome's bases, about the human one
    divergence: Fraction = 0.04  # substitutions per base of a copy, in the mean over its ages; young, so that minutes of training show them


class SyntheticSettings(Section):
    """The synthetic genome (`grover-dist synth`): known words in a known background."""

    length_bp: int = Field(2_000_000, ge=10_000)
    contigs: int = Field(4, ge=1)
    gc_low: Fraction = 0.37
    gc_high: Fraction = 0.53
    isochore_bp: int = Field(40_000, ge=100)
    cpg_depletion: Fraction = 0.8  # share of CpG that decays to TpG or CpA
    transposons: TransposonSettings = TransposonSettings()
    tandem_repeats: int = Field(60, ge=0)
    promoters: int = Field(400, ge=0)
    ctcf_sites: int = Field(300, ge=0)  # motif sites; half of them bound


class GenomeSettings(Section):
    fasta: tuple[Path, ...] = ()
    synthetic: SyntheticSettings | None = None
    include: tuple[str, ...] = ("*",)  # shell patterns over record names
    exclude: tuple[str, ...] = ()
    assemblies: tuple[str, ...] = ()  # the genome that each file of `fasta` belongs to; by default each its own, named like the file

    @model_validator(mode="before")
    @classmethod
    def _one_path_is_a_list(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("fasta"), (str, Path)):
            data = {**data, "fasta": [data["fasta"]]}
        return data

    @model_validator(mode="after")
    def _one_source(self) -> GenomeSettings:
        if bool(self.fasta) == (self.synthetic is not None):
            raise ValueError("give either genome.fasta or genome.synthetic, and not both")
        if self.assemblies and len(self.assemblies) != len(self.fasta):
            raise ValueError(f"assemblies names {len(self.assemblies)} genomes for {len(self.fasta)} files; name one for each")
        return self


class BpeSettings(Section):
    cycles: int = Field(1_000, ge=1, le=MAX_CYCLES)
    strand: Literal["forward", "symmetric"] = "forward"


class SplitSettings(Section):
    """Blocks of the genome are dealt to training or held out by a keyed hash; named records are held out whole."""

    block_bp: int = Field(1_000_000, ge=1_000)
    held_out_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    held_out_records: tuple[str, ...] = ()  # when given, these records and no others are held out


class WindowSettings(Section):
    max_tokens: int = Field(510, ge=2)
    min_tokens: int = Field(20, ge=1)
    full_probability: Fraction = 0.5

    @model_validator(mode="after")
    def _ordered(self) -> WindowSettings:
        if self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens {self.min_tokens} is above max_tokens {self.max_tokens}")
        return self

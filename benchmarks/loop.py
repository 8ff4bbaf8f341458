"""Does correcting the most uncertain patients first help? The ground truth takes the place of the user.

    python benchmarks/loop.py play kaggle_3m --model runs/fold-fold0.safetensors --fold 0
    python benchmarks/loop.py show

The cohort is the patients that the model has not seen, or a fold's test patients. Half of them, or as many
as --pool says, form the pool that is corrected; the others are the test patients. In a round, the pool is
segmented as in the Cohort widget, the most uncertain uncorrected patients are corrected, and the model is
fine-tuned on all corrected ones as in the Fine-tune widget, with as many of the patients that it was
trained on before. The result is the Dice on the test patients. For comparison, the same is done with
patients in random order. Every round starts from the initial model, not from that of the previous round, so
that all rounds have the same number of steps.

``play`` writes docs/experiments/loop.json after each round and resumes where it was stopped; models and
results are in the folder of ``--work``. ``show`` prints the file's table and draws docs/figures/loop.png.
"""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from results import DOCS, EXPERIMENTS, FIGURES, as_table, difference, with_interval
from scoring import dice_by_patient

from napari_lgg_seg.core import memory
from napari_lgg_seg.core.atomic import replacing
from napari_lgg_seg.core.cohort.corrected import find_corrected
from napari_lgg_seg.core.cohort.patient_job import PatientFailed, PatientSegmented
from napari_lgg_seg.core.cohort.run import segment_cohort
from napari_lgg_seg.core.cohort.status import PatientStatus
from napari_lgg_seg.core.cohort.store import ResultStore
from napari_lgg_seg.core.data.discover import patient_folders
from napari_lgg_seg.core.data.label_files import LabelMap
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.evaluation.metrics import summarise
from napari_lgg_seg.core.inference.predict import Notice
from napari_lgg_seg.core.model.checkpoint import load_model, read_card
from napari_lgg_seg.core.options import SegmentOptions
from napari_lgg_seg.core.training.events import EpochDone
from napari_lgg_seg.core.training.options import TrainOptions
from napari_lgg_seg.core.training.paths import state_folder
from napari_lgg_seg.core.training.split import draw_rehearsal, split_patients
from napari_lgg_seg.core.training.train import train

MODEL, WORK = Path("runs/fold-fold0.safetensors"), Path("runs/loop")
FILE, FIGURE, FOLDS = EXPERIMENTS / "loop.json", FIGURES / "loop.png", DOCS / "folds.json"
#: The orders in which patients are corrected, as in the file, and their labels.
UNCERTAIN, RANDOM = "most uncertain first", "by chance"
LABELS = {UNCERTAIN: "most uncertain first", RANDOM: "random order"}
#: Share of the corrected patients with which the epoch is chosen.
VALIDATION = 0.2
HEADER = (
    *("order", "corrected", "for training", "for validation", "old patients", "best epoch"),
    *("mean Dice (95 % CI)", "median (95 % CI)", "difference of means (95 % CI)", "< 0.5", "missed"),
)

app = typer.Typer(add_completion=False, help=__doc__)


@dataclass(frozen=True)
class Plan:
    """What decides the results.

    Attributes
    ----------
    dataset, model : Path
        Folder of all patients, and the initial model.
    pool, untouched, old : tuple of str
        Names of the patients that are corrected, of the test patients, and of those that the model was
        trained on.
    per_round, rounds : int
        Patients corrected per round, and number of rounds.
    share : float
        Share of old patients among the training patients.
    options : TrainOptions
        Options of the fine-tuning.
    """

    dataset: Path
    model: Path
    pool: tuple[str, ...]
    untouched: tuple[str, ...]
    old: tuple[str, ...]
    per_round: int
    rounds: int
    share: float
    options: TrainOptions

    def as_dict(self) -> dict[str, Any]:
        """The plan for JSON, without paths on this computer."""
        values = dataclasses.asdict(self) | {"model": self.model.stem}
        del values["dataset"], values["options"]["init"]
        values["options"] = {k: v for k, v in values["options"].items() if v is not None}
        return json.loads(json.dumps(values))


class Log:
    """The file of results: a row for each round.

    Parameters
    ----------
    file : Path
        Read if it exists.
    plan : Plan
        The plan that the file must belong to.

    Raises
    ------
    typer.BadParameter
        If the file belongs to another plan.
    """

    def __init__(self, file: Path, plan: Plan) -> None:
        self._file, self._plan = file, plan.as_dict()
        self.rows: list[dict[str, Any]] = []
        if file.exists():
            content = json.loads(file.read_text(encoding="utf-8"))
            known = {option.name for option in dataclasses.fields(TrainOptions)}
            stored = {k: v for k, v in content["plan"]["options"].items() if k in known}
            if content["plan"] | {"options": stored} != self._plan:
                raise typer.BadParameter(f"{file} belongs to another plan; move it or choose another --file.")
            self.rows = content["rows"]

    def find(self, order: str, number: int) -> dict[str, Any] | None:
        """The row of a round."""
        return next((r for r in self.rows if (r["order"], r["round"]) == (order, number)), None)

    def with_all(self, pool: Collection[str]) -> dict[str, Any] | None:
        """The row of a round after which the whole pool is corrected."""
        return next((row for row in self.rows if set(row["corrected"]) == set(pool)), None)

    def add(self, row: dict[str, Any]) -> None:
        """Append a row to the file."""
        self.rows.append(row)
        rows = ",\n  ".join(json.dumps(row) for row in self.rows)
        with replacing(self._file) as temporary:
            text = f'{{\n "plan": {json.dumps(self._plan)},\n "rows": [\n  {rows}\n ]\n}}\n'
            temporary.write_text(text, encoding="utf-8")
        print(_summary(row), flush=True)


@app.command()
def play(
    dataset: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder of all patients.")],
    model: Annotated[Path, typer.Option(help="The initial model.")] = MODEL,
    fold: Annotated[
        int | None,
        typer.Option(help="The fold whose test patients are the cohort; by default all unseen patients."),
    ] = None,
    pool: Annotated[
        int | None, typer.Option(min=2, help="Patients to correct; by default half of the cohort.")
    ] = None,
    folds: Annotated[Path, typer.Option(help="File with the test patients of all folds.")] = FOLDS,
    per_round: Annotated[int, typer.Option(min=2, help="Patients corrected per round.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Number of rounds.")] = 4,
    share: Annotated[float, typer.Option(help="Share of old patients in the training.")] = 0.5,
    epochs: Annotated[int | None, typer.Option(help="Epochs of each fine-tuning.")] = None,
    slices_per_epoch: Annotated[int | None, typer.Option(help="Slices per epoch.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of pool, random order and fine-tuning.")] = 0,
    file: Annotated[Path, typer.Option(help="File for the results.")] = FILE,
    work: Annotated[Path, typer.Option(help="Folder for models and labels.")] = WORK,
) -> None:
    """Play all rounds in both orders, except those that are in the file."""
    memory.keep_memory_mapped()
    options = TrainOptions(
        init=str(model), epochs=epochs, slices_per_epoch=slices_per_epoch, seed=seed
    ).complete(fine_tuning=True)
    test = None if fold is None else json.loads(folds.read_text(encoding="utf-8"))[fold]
    plan = make_plan(dataset, model, test, pool, per_round, rounds, share, options)
    log = Log(file, plan)
    before = next((row["dice"] for row in log.rows if row["round"] == 0), None)
    for order in (UNCERTAIN, RANDOM):
        if log.find(order, 0) is None:
            before = before or score(plan.model, plan)
            log.add({"order": order, "round": 0, "corrected": [], "dice": before})
        _play(plan, order, log, work / order.replace(" ", "-"))


def make_plan(
    dataset: Path,
    model: Path,
    test: list[str] | None,
    pool_size: int | None,
    per_round: int,
    rounds: int,
    share: float,
    options: TrainOptions,
) -> Plan:
    """Split a fold's test patients, or all unseen patients, into the pool and the untouched test patients.

    Both have their share of every institution.

    Raises
    ------
    typer.BadParameter
        If the model has seen one of them in training or validation.
    """
    card = read_card(model)
    there = [folder.name for folder in patient_folders(dataset)]
    known = {*card.seen_patients(), *card.validation_patients}
    cohort = [name for name in (there if test is None else test) if name in there]
    if test is None:
        cohort = [name for name in cohort if name not in known]
    seen = sorted(known & set(cohort))
    if seen or len(cohort) < 2:
        what = f"has seen {seen[0]}" if seen else f"has fewer than two test patients in {dataset}"
        raise typer.BadParameter(f"{model} {what}; choose the fold that it was not trained on.")
    share_untouched = 0.5 if pool_size is None else max(0.0, 1 - pool_size / len(cohort))
    pool, untouched = split_patients(cohort, share_untouched, options.seed)
    old = sorted(card.seen_patients() & set(there))
    return Plan(dataset, model, tuple(pool), tuple(untouched), tuple(old), per_round, rounds, share, options)


# --- a round -----------------------------------------------------------------------------------


def _play(plan: Plan, order: str, log: Log, work: Path) -> None:
    """Play all rounds in one order, except those that are in the log."""
    results, model, corrected = ResultStore(work / "results"), plan.model, []
    for number in range(1, plan.rounds + 1):
        row = log.find(order, number)
        left = [name for name in plan.pool if name not in corrected]
        if not left:
            return
        statuses = segment(plan, model, left, results) if row is None and order == UNCERTAIN else {}
        chosen = row["chosen"] if row is not None else choose(plan, left, statuses)
        for name in chosen:
            correct(plan.dataset / name, results)
        corrected = [*corrected, *chosen]
        if len(corrected) == len(plan.pool) and (same := log.with_all(plan.pool)) is not None:
            # With the whole pool corrected, the order makes no difference, and no round follows.
            if row is None:
                rest = {"order": order, "round": number, "chosen": chosen, "corrected": corrected}
                log.add({**same, **rest, "uncertainty": {}})
            return
        tuned = work / f"round-{number}.safetensors"
        if row is None or not tuned.exists():
            split = tune(plan, corrected, results, tuned)
        if row is None:
            uncertainty = {name: 1 - (status.expected_dice or 0) for name, status in statuses.items()}
            epoch = read_card(tuned).training["epoch"]
            rest = {**split, "epoch": epoch, "uncertainty": uncertainty, "dice": score(tuned, plan)}
            log.add({"order": order, "round": number, "chosen": chosen, "corrected": corrected, **rest})
        shutil.rmtree(state_folder(tuned), ignore_errors=True)
        model = tuned


def segment(plan: Plan, model: Path, names: list[str], results: ResultStore) -> dict[str, PatientStatus]:
    """Segment patients with the newest model as the Cohort widget does; returns their status."""
    options = SegmentOptions(tta=True)  # the widget's default when this was measured
    folders = [plan.dataset / name for name in names]
    statuses = {}
    for event in segment_cohort(
        folders, results.folder, model, options, "tiff", overwrite=True, replace_corrected=names
    ):
        if isinstance(event, PatientSegmented):
            statuses[event.name] = event.status
        elif isinstance(event, PatientFailed):
            raise RuntimeError(event.sentence)
    return statuses


def choose(plan: Plan, left: list[str], statuses: dict[str, PatientStatus]) -> list[str]:
    """The next patients: those without any tumour found, then the least expected Dice; else at random."""
    if statuses:
        ordered = sorted(left, key=lambda n: (not statuses[n].nothing_found, statuses[n].expected_dice or 0))
    else:
        order = random.Random(plan.options.seed).sample(plan.pool, len(plan.pool))
        ordered = [name for name in order if name in left]
    return ordered[: plan.per_round]


def correct(folder: Path, results: ResultStore) -> None:
    """Do the user's work on a patient: store the ground truth as the corrected labels."""
    patient = read_patient(folder)
    assert patient.truth is not None
    label_map = LabelMap(patient.name, patient.truth, patient.slice_numbers)
    results.patient(patient.name).write_edits(label_map)


def tune(plan: Plan, corrected: list[str], results: ResultStore, output: Path) -> dict[str, list[str]]:
    """Fine-tune, or resume, on corrected and old patients; returns which patients were used for what."""
    sources = find_corrected(plan.dataset, results.folder).patients
    training, validation = split_patients(corrected, VALIDATION, plan.options.seed)
    old = draw_rehearsal(plan.old, len(training), plan.share, plan.options.seed)
    patients = [*(sources[name] for name in training), *(plan.dataset / name for name in old)]
    events = train(patients, [sources[name] for name in validation], output, plan.options, resume=True)
    for event in events:
        if isinstance(event, EpochDone | Notice):
            print(event, flush=True)
    return {"training": training, "validation": validation, "old": old}


def score(model: Path, plan: Plan) -> dict[str, float]:
    """Dice of each untouched patient over the volume, with the model's own threshold and clean-up."""
    patients = (read_patient(plan.dataset / name) for name in plan.untouched)
    return {name: round(dice, 4) for name, dice in dice_by_patient(load_model(model), patients).items()}


# --- results -----------------------------------------------------------------------------------


@app.command()
def show(
    file: Annotated[Path, typer.Option(help="File that play wrote.")] = FILE,
    figure: Annotated[Path, typer.Option(help="File for the figure.")] = FIGURE,
) -> None:
    """Print the table, and draw the Dice on untouched patients by number of corrected ones."""
    print(table(json.loads(file.read_text(encoding="utf-8"))))
    draw(file, figure)


def draw(file: Path, figure: Path) -> None:
    """Draw the Dice on untouched patients by number of corrected ones, a colour for each order."""
    import plots

    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    with plots.figure(figure, 5.0, 3.2) as (axes,):
        for order, colour in zip((UNCERTAIN, RANDOM), plots.COLOURS, strict=False):
            mine = sorted((row for row in rows if row["order"] == order), key=lambda row: row["round"])
            counts = [len(row["corrected"]) for row in mine]
            for statistic, style in (("mean", "o-"), ("median", "s:")):
                values = [getattr(summarise(row["dice"]), statistic) for row in mine]
                axes.plot(counts, values, style, color=colour, ms=4, label=f"{LABELS[order]}, {statistic}")
        axes.set(xlabel="Corrected patients", ylabel="Dice on untouched patients")
        axes.set_xticks(sorted({len(row["corrected"]) for row in rows}))
        axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)


def table(content: Mapping[str, Any]) -> str:
    """The plan in a few sentences, and a row for each round, for the page."""
    before = {row["order"]: row["dice"] for row in content["rows"] if row["round"] == 0}
    rows = sorted(content["rows"], key=lambda row: (row["order"] != UNCERTAIN, row["round"]))
    lines = as_table(HEADER, [_cells(row, before[row["order"]]) for row in rows])
    return f"{_plan_summary(content['plan'])}\n\n{lines}"


def _cells(row: Mapping[str, Any], before: Mapping[str, float]) -> list[str]:
    scores, summary = row["dice"], summarise(row["dice"])
    return [
        LABELS[row["order"]],
        str(len(row["corrected"])),
        *(str(len(row[side])) if row["round"] else "" for side in ("training", "validation", "old")),
        str(row.get("epoch", "")),
        with_interval(scores.values()),
        with_interval(scores.values(), np.median),
        difference(scores, before) if row["round"] else "",
        str(len(summary.below_half)),
        str(len(summary.missed)),
    ]


def _plan_summary(plan: Mapping[str, Any]) -> str:
    options = plan["options"]
    old, pool, untouched = (len(plan[key]) for key in ("old", "pool", "untouched"))
    return (
        f"Initial model `{plan['model']}`, trained on {old} old patients; {pool} patients to correct, "
        f"{plan['per_round']} per round; {untouched} untouched test patients. Each fine-tuning: "
        f"{options['epochs']} epochs of {options['slices_per_epoch']} slices, learning rate "
        f"{options['learning_rate']:g}, {plan['share']:.0%} old patients in the training, seed "
        f"{options['seed']}."
    )


def _summary(row: dict[str, Any]) -> str:
    summary = summarise(row["dice"])
    return (
        f"{LABELS[row['order']]}, {len(row['corrected'])} corrected: mean Dice {summary.mean:.3f}, median "
        f"{summary.median:.3f}, {len(summary.below_half)} of {summary.patients} untouched patients below 0.5"
    )


if __name__ == "__main__":
    app()

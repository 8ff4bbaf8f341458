"""Does correcting the most uncertain pay? A script that plays the user; the truth is the correction.

    python benchmarks/loop.py play kaggle_3m --model runs/fold-fold0.safetensors --fold 0
    python benchmarks/loop.py show

The patients are those that the model has not seen, or of these a fold's test patients. Half of them, or as
many as --pool says, are the pool, as new in the user's cohort; the others stay untouched. A round: the pool
is segmented as the Cohort widget does it, the most uncertain patients that are not corrected yet are
corrected, and the model is fine-tuned on all corrected ones as Fine-tune does it, with as many of the
patients that it was trained on. What counts is Dice on the untouched patients. Beside it, the same with
patients in an order drawn by chance. Each round starts from the given model, not from the last round's: so
all rounds have the same number of steps.

``play`` writes docs/experiments/loop.json after each round and goes on where it was stopped; models and
results are in the folder of ``--work``. ``show`` prints the file and draws docs/figures/loop.png.
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
from results import DOCS, EXPERIMENTS, as_table, difference, with_interval

from napari_lgg_seg.core import memory
from napari_lgg_seg.core.atomic import replacing
from napari_lgg_seg.core.cohort.corrected import corrected_patients
from napari_lgg_seg.core.cohort.index import PatientStatus
from napari_lgg_seg.core.cohort.results import CohortResults
from napari_lgg_seg.core.cohort.run import PatientUnusable, PredictionStored, describe_run, segment_patients
from napari_lgg_seg.core.data.discover import patient_folders
from napari_lgg_seg.core.data.label_files import LabelMap
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.evaluation.metrics import dice, summarise
from napari_lgg_seg.core.inference.postprocess import postprocess
from napari_lgg_seg.core.inference.predict import Notice, Predictor, predictor_for, run_to_end
from napari_lgg_seg.core.model.checkpoint import load_model, read_card
from napari_lgg_seg.core.options import SegmentOptions
from napari_lgg_seg.core.training.events import EpochDone
from napari_lgg_seg.core.training.options import TrainOptions
from napari_lgg_seg.core.training.paths import state_folder
from napari_lgg_seg.core.training.split import draw_old, split_patients
from napari_lgg_seg.core.training.train import train

MODEL, WORK = Path("runs/fold-fold0.safetensors"), Path("runs/loop")
FILE, FIGURE, FOLDS = EXPERIMENTS / "loop.json", DOCS / "figures" / "loop.png", DOCS / "folds.json"
#: In which order patients are corrected.
UNCERTAIN, RANDOM = "most uncertain first", "by chance"
#: Share of the corrected patients that choose the epoch.
VALIDATION = 0.2
#: Of the table.
HEADER = (
    *("order", "corrected", "of them train", "validate", "old patients", "epoch kept"),
    *("mean Dice (95 %)", "median (95 %)", "difference of means (95 %)", "below 0.5", "missed"),
)

app = typer.Typer(add_completion=False, help=__doc__)


@dataclass(frozen=True)
class Plan:
    """What is played.

    Attributes
    ----------
    dataset, model : Path
        All patients, and the model to begin with.
    pool, untouched, old : tuple of str
        Patients to correct, to measure on, and that the model was trained on.
    per_round, rounds : int
        Patients corrected in a round, and how many rounds.
    share : float
        Of old patients among those that train.
    options : TrainOptions
        Of the fine-tuning.
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
        """What decides the figures, ready for JSON; places on this computer are left out."""
        values = dataclasses.asdict(self) | {"model": self.model.stem}
        del values["dataset"], values["options"]["init"]
        values["options"] = {k: v for k, v in values["options"].items() if v is not None}
        return json.loads(json.dumps(values))


class Log:
    """The file of figures: a row for each round.

    Parameters
    ----------
    file : Path
        Read if it is there.
    plan : Plan
        It must be of this one.

    Raises
    ------
    typer.BadParameter
        If it is not.
    """

    def __init__(self, file: Path, plan: Plan) -> None:
        self._file, self._plan = file, plan.as_dict()
        self.rows: list[dict[str, Any]] = []
        if file.exists():
            content = json.loads(file.read_text(encoding="utf-8"))
            if content["plan"] != self._plan:
                raise typer.BadParameter(f"{file} is of another plan; move it away or choose another --file.")
            self.rows = content["rows"]

    def find(self, order: str, number: int) -> dict[str, Any] | None:
        """The row of a round."""
        return next((r for r in self.rows if (r["order"], r["round"]) == (order, number)), None)

    def with_all(self, pool: Collection[str]) -> dict[str, Any] | None:
        """The row of a round after which all of the pool were corrected."""
        return next((row for row in self.rows if set(row["corrected"]) == set(pool)), None)

    def add(self, row: dict[str, Any]) -> None:
        """Write one more row."""
        self.rows.append(row)
        rows = ",\n  ".join(json.dumps(row) for row in self.rows)
        with replacing(self._file) as temporary:
            text = f'{{\n "plan": {json.dumps(self._plan)},\n "rows": [\n  {rows}\n ]\n}}\n'
            temporary.write_text(text, encoding="utf-8")
        print(_summary(row), flush=True)


@app.command()
def play(
    dataset: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="All patients.")],
    model: Annotated[Path, typer.Option(help="The model to begin with.")] = MODEL,
    fold: Annotated[
        int | None,
        typer.Option(help="Whose test patients are the cohort; by default all that the model has not seen."),
    ] = None,
    pool: Annotated[int | None, typer.Option(min=2, help="Patients to correct; half of them all.")] = None,
    folds: Annotated[Path, typer.Option(help="The test patients of all folds.")] = FOLDS,
    per_round: Annotated[int, typer.Option(min=2, help="Patients corrected in a round.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="How many rounds.")] = 4,
    share: Annotated[float, typer.Option(help="Of old patients among those that train.")] = 0.5,
    epochs: Annotated[int | None, typer.Option(help="Of each fine-tuning.")] = None,
    slices_per_epoch: Annotated[int | None, typer.Option(help="Of each fine-tuning.")] = None,
    seed: Annotated[int, typer.Option(help="Of pool, order by chance, and fine-tuning.")] = 0,
    file: Annotated[Path, typer.Option(help="Where the figures go.")] = FILE,
    work: Annotated[Path, typer.Option(help="Where models and results go.")] = WORK,
) -> None:
    """Play all rounds in both orders, or those that the file lacks."""
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
    """Split a fold's test patients, or all that the model has not seen, in pool and untouched ones.

    Both have their share of the institutions.

    Raises
    ------
    typer.BadParameter
        If the model has seen one of them, in training or in validation.
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
    """All rounds in one order; those that are in the log are not played again."""
    results, model, corrected = CohortResults(work / "results"), plan.model, []
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
            # All of them, in whatever order, make the same model, and none comes after it.
            if row is None:
                rest = {"order": order, "round": number, "chosen": chosen, "corrected": corrected}
                log.add({**same, **rest, "uncertainty": {}})
            return
        tuned = work / f"round-{number}.safetensors"
        if row is None or not tuned.exists():
            split = tune(plan, corrected, results, tuned)
        if row is None:
            doubts = {name: 1 - (status.expected_dice or 0) for name, status in statuses.items()}
            epoch = read_card(tuned).training["epoch"]
            rest = {**split, "epoch": epoch, "uncertainty": doubts, "dice": score(tuned, plan)}
            log.add({"order": order, "round": number, "chosen": chosen, "corrected": corrected, **rest})
        shutil.rmtree(state_folder(tuned), ignore_errors=True)
        model = tuned


def segment(plan: Plan, model: Path, names: list[str], results: CohortResults) -> dict[str, PatientStatus]:
    """Segment the pool with the newest model, as the Cohort widget does; the records of the patients."""
    options = SegmentOptions(tta=True)  # as the widget proposes
    predictor = predictor_for(load_model(model), options)
    folders = [plan.dataset / name for name in names]
    run = describe_run(model, options)
    statuses = {}
    for event in segment_patients(folders, results, predictor, options, run, replaceable=names):
        if isinstance(event, PredictionStored):
            statuses[event.folder.name] = event.status
        elif isinstance(event, PatientUnusable):
            raise RuntimeError(event.sentence)
    return statuses


def choose(plan: Plan, left: list[str], statuses: dict[str, PatientStatus]) -> list[str]:
    """Who is corrected next: in whom nothing was found, then who promises least; else by chance."""
    if statuses:
        ordered = sorted(left, key=lambda n: (not statuses[n].nothing_found, statuses[n].expected_dice or 0))
    else:
        order = random.Random(plan.options.seed).sample(plan.pool, len(plan.pool))
        ordered = [name for name in order if name in left]
    return ordered[: plan.per_round]


def correct(folder: Path, results: CohortResults) -> None:
    """Do the user's work on a patient: the truth is among the results then, as corrected."""
    patient = read_patient(folder)
    assert patient.truth is not None
    results.write_corrected(folder.name, LabelMap(patient.name, patient.truth, patient.slice_numbers))


def tune(plan: Plan, corrected: list[str], results: CohortResults, output: Path) -> dict[str, list[str]]:
    """Fine-tune on the corrected patients and old ones, or go on with that; says who trained."""
    sources = {patient.name: patient for patient in corrected_patients(plan.dataset, results.folder)}
    training, validation = split_patients(corrected, VALIDATION, plan.options.seed)
    old = draw_old(plan.old, len(training), plan.share, plan.options.seed)
    learn = [*(sources[name] for name in training), *(plan.dataset / name for name in old)]
    events = train(learn, [sources[name] for name in validation], output, plan.options, resume=True)
    for event in events:
        if isinstance(event, EpochDone | Notice):
            print(event, flush=True)
    return {"training": training, "validation": validation, "old": old}


def score(model: Path, plan: Plan) -> dict[str, float]:
    """Dice of each untouched patient over the volume, with the model's own threshold and clean-up."""
    predictor = Predictor(load_model(model))
    options = predictor.card.complete(SegmentOptions())
    scores = {}
    for name in plan.untouched:
        patient = read_patient(plan.dataset / name)
        assert patient.volume is not None
        assert patient.truth is not None
        labels = postprocess(run_to_end(predictor.predict(patient.volume)), options)
        scores[name] = round(dice(labels, patient.truth), 4)
    return scores


# --- what it comes to --------------------------------------------------------------------------


@app.command()
def show(
    file: Annotated[Path, typer.Option(help="From play.")] = FILE,
    figure: Annotated[Path, typer.Option(help="Where the figure goes.")] = FIGURE,
) -> None:
    """Print the table, and draw Dice on untouched patients against the number of corrected ones."""
    print(table(json.loads(file.read_text(encoding="utf-8"))))
    draw(file, figure)


def draw(file: Path, figure: Path) -> None:
    """Dice on untouched patients against the number of corrected ones, a colour for each order."""
    import plots

    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    with plots.figure(figure, 5.0, 3.2) as (axes,):
        for order, colour in zip((UNCERTAIN, RANDOM), plots.COLOURS, strict=False):
            mine = sorted((row for row in rows if row["order"] == order), key=lambda row: row["round"])
            counts = [len(row["corrected"]) for row in mine]
            for statistic, style in (("mean", "o-"), ("median", "s:")):
                values = [getattr(summarise(row["dice"]), statistic) for row in mine]
                axes.plot(counts, values, style, color=colour, ms=4, label=f"{order}, {statistic}")
        axes.set(xlabel="Corrected patients", ylabel="Dice on untouched patients")
        axes.set_xticks(sorted({len(row["corrected"]) for row in rows}))
        axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)


def table(content: Mapping[str, Any]) -> str:
    """What was played, and a row for each round, for the page."""
    before = {row["order"]: row["dice"] for row in content["rows"] if row["round"] == 0}
    rows = sorted(content["rows"], key=lambda row: (row["order"] != UNCERTAIN, row["round"]))
    lines = as_table(HEADER, [_cells(row, before[row["order"]]) for row in rows])
    return f"{_plan_summary(content['plan'])}\n\n{lines}"


def _cells(row: Mapping[str, Any], before: Mapping[str, float]) -> list[str]:
    scores, summary = row["dice"], summarise(row["dice"])
    return [
        row["order"],
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
    return (
        f"Model `{plan['model']}`, which knows {len(plan['old'])} old patients; {len(plan['pool'])} patients "
        f"to correct, {plan['per_round']} in a round; {len(plan['untouched'])} untouched ones. Each "
        f"fine-tuning: {options['epochs']} epochs of {options['slices_per_epoch']} slices, learning rate "
        f"{options['learning_rate']:g}, {plan['share']:.0%} of those that train are old patients, seed "
        f"{options['seed']}."
    )


def _summary(row: dict[str, Any]) -> str:
    summary = summarise(row["dice"])
    return (
        f"{row['order']}, {len(row['corrected'])} corrected: mean Dice {summary.mean:.3f}, median "
        f"{summary.median:.3f}, {len(summary.below_half)} below 0.5 of {summary.patients} untouched"
    )


if __name__ == "__main__":
    app()

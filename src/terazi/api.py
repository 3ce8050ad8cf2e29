"""The verbs: what can be done with a model, one short function each; no loops over tensors, no maths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from terazi.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from terazi.calibrate import Calibration
    from terazi.devices import Budget
    from terazi.evaluate import Measurement
    from terazi.model import Artifact, Model
    from terazi.model.description import Description
    from terazi.model.license import Use
    from terazi.quantize import Plan
    from terazi.quantize.onnx import OnnxRecipe
    from terazi.search import Recommendation, Settings, Study

__all__ = [
    "calibrate",
    "compare",
    "convert",
    "evaluate",
    "inspect",
    "open_model",
    "optimize",
    "propose",
    "quantize",
    "quantize_collection",
]


def calibrate(
    model: Path | str,
    text: Path | str | None = None,
    *,
    output: Path | str | None = None,
    earlier: Sequence[Path | str] = (),
    force: bool = False,
    progress: Progress = silent,
    **options: Any,
) -> Calibration:
    """Observe which columns of a model's weights matter, and write that as llama.cpp's importance matrix.

    ``text`` is a file, by default half of Python's language reference. ``earlier`` names importance matrices
    to add. ``options`` are those of `terazi.calibrate.collect`: ``context``, ``chunks``, ``output_tensor``,
    ``threads``. An interrupted run with an ``output`` continues where it was. Raises `ExistsError` unless
    ``force``.
    """
    from pathlib import Path

    from terazi.calibrate import calibration_corpus, collect, load, merge, read_corpus, save
    from terazi.errors import ExistsError
    from terazi.registry import resolve_model

    target = Path(output) if output is not None else None
    if target is not None and target.exists() and not force:
        raise ExistsError(target)
    corpus = read_corpus(text) if text is not None else calibration_corpus()
    loaded = [load(path) for path in earlier]
    state = target.with_name(f"{target.name}.partial") if target else None
    found = collect(
        resolve_model(model, progress=progress), corpus, state=state, progress=progress, **options
    )
    found = merge([found, *loaded]) if loaded else found
    if target is not None:
        save(target, found, force=force)
    return found


def convert(
    model: Model | Path | str,
    to: str | None = None,
    *,
    output: Path | str,
    force: bool = False,
    progress: Progress = silent,
    **options: Any,
) -> Artifact:
    """Write a model in another format: a key of `terazi.convert.TARGETS`, by default what ``output`` ends in.

    ``options`` are the target's own, such as ``type="F16"``. Raises `UnsupportedError` for a pair or an
    architecture that cannot be converted, `UsageError` for an option that the target does not have,
    `FormatError` for a damaged checkpoint, `ExistsError` unless ``force``.
    """
    from terazi.convert import check_conversion, converter
    from terazi.model import Model

    run = converter(to, output)
    opened = model if isinstance(model, Model) else open_model(model)
    check_conversion(opened.format, to, output, options)
    return run(opened, output, force=force, progress=progress, **options)


def open_model(model: Path | str) -> Model:
    """Open a checkpoint by path, name or source; only headers are read. See `terazi.registry.open_model`."""
    from terazi.registry import open_model

    return open_model(model)


def inspect(model: Model | Path | str, *, context: int | None = None, use: Use = "commercial") -> Description:
    """Describe a model from its headers: types, licence, runtimes, and memory at ``context`` tokens.

    See `terazi.model.description.describe` for the defaults. Raises what `open_model` raises.
    """
    from terazi.model import Model
    from terazi.model.description import describe

    return describe(model if isinstance(model, Model) else open_model(model), context=context, use=use)


def evaluate(
    model: Path | str,
    reference: Path | str | None = None,
    *,
    text: Path | str | None = None,
    tokens: int = 4096,
    context: int = 512,
    threads: int | None = None,
    progress: Progress = silent,
) -> list[Measurement]:
    """Run a file, directory or stored model in its own engine and measure its quality, speed and memory.

    With ``reference``, another variant of the same model, also how far the two are apart. ``text`` is a
    UTF-8 file. See `terazi.evaluate.evaluate` for what is measured, for the defaults and the errors.
    """
    from terazi.evaluate import evaluate
    from terazi.registry import resolve_model

    path = resolve_model(model, progress=progress)
    against = resolve_model(reference, progress=progress) if reference is not None else None
    return evaluate(
        path, reference=against, text=text, tokens=tokens, context=context, threads=threads, progress=progress
    )


def quantize(
    model: Model | Path | str,
    recipe: Plan | OnnxRecipe | str = "Q4_K_M",
    *,
    output: Path | str,
    calibration: Calibration | None = None,
    threads: int = 0,
    force: bool = False,
    progress: Progress = silent,
    **options: Any,
) -> Artifact:
    """Write a smaller file of a model. GGUF presets give the bytes of llama.cpp's own tool.

    ``recipe`` is a preset's name, a finished plan, or an ONNX recipe (`terazi.quantize.onnx`) for ONNX
    models. ``calibration`` weighs the rounding. ``options`` are those of `terazi.quantize.make_plan`:
    ``overrides``, ``pure``, ``keep_split`` and so on; for ONNX ``data`` and ``on``. Raises `UsageError` for
    what cannot be, `FormatError` for damaged weights, `ExistsError` unless ``force``.
    """
    from terazi.model import Model
    from terazi.quantize import apply, make_plan, open_source
    from terazi.quantize.onnx.recipes import ONNX_RECIPES, OnnxRecipe

    if isinstance(recipe, OnnxRecipe) or (isinstance(recipe, str) and recipe.lower() in ONNX_RECIPES):
        from terazi.quantize.onnx import quantize_onnx

        opened = model if isinstance(model, Model) else open_model(model)
        return quantize_onnx(
            opened, recipe, output, threads=threads, force=force, progress=progress, **options
        )
    source = open_source(model if isinstance(model, Model) else open_model(model))
    if isinstance(recipe, str):
        recipe = make_plan(source, recipe, calibration=calibration, **options)
    return apply(
        recipe, source, output, calibration=calibration, threads=threads, force=force, progress=progress
    )


def quantize_collection(
    model: Model | Path | str,
    presets: Sequence[str] = (),
    *,
    output: Path | str,
    calibration: Calibration | None = None,
    threads: int = 0,
    force: bool = False,
    progress: Progress = silent,
    **options: Any,
) -> list[Artifact]:
    """Write a series of quantized files into the directory ``output``, created if need be, in one pass.

    Without ``presets`` it is the usual series, from Q8_0 down to the smallest that ``calibration`` allows.
    ``options`` and errors are those of `quantize`. No file appears unless all are complete.
    """
    from terazi.model import Model
    from terazi.quantize import (
        apply_many,
        collection_directory,
        collection_path,
        open_source,
        plan_collection,
    )

    source = open_source(model if isinstance(model, Model) else open_model(model))
    plans = plan_collection(source, presets, calibration=calibration, **options)
    with collection_directory(output):
        paths = [collection_path(output, source, plan) for plan in plans]
        return apply_many(
            plans, source, paths, calibration=calibration, threads=threads, force=force, progress=progress
        )


def propose(  # noqa: PLR0913
    model: Path | str,
    *,
    device: Path | str = "this-machine",
    use_case: Path | str = "chat",
    budget: Budget | None = None,
    context: int | None = None,
    types: Sequence[str] = (),
    formats: Sequence[str] = (),
    thorough: bool = False,
    calibration: Calibration | None = None,
    progress: Progress = silent,
) -> Study:
    """Plan the variants that `optimize` would make of a model, with sizes and memory; nothing runs.

    ``device`` and ``use_case`` are names (see `terazi.devices`) or TOML files. ``types`` are GGUF
    presets, ONNX and MLX recipes; without them ``formats`` (gguf, onnx, mlx) get their usual ones, all of
    them with ``thorough``. Raises what `open_model` raises, and
    `UsageError` for what cannot be.
    """
    from terazi import devices, search
    from terazi.quantize import open_source
    from terazi.registry import open_model

    return search.propose(
        open_source(open_model(model, progress=progress)),
        str(model),
        devices.device(device),
        devices.use_case(use_case),
        budget or devices.Budget(),
        context=context,
        types=types or None,
        formats=formats,
        thorough=thorough,
        calibration=calibration,
    )


def optimize(
    model: Study | Path | str,
    *,
    device: Path | str = "this-machine",
    use_case: Path | str = "chat",
    budget: Budget | None = None,
    settings: Settings | None = None,
    output: Path | str | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Recommendation:
    """Make variants of a model, run each in llama.cpp, and recommend one for a device and a use case.

    ``model`` is a model, or a study that `propose` planned for its own device and use case. ``settings`` say
    how to measure. Into the folder ``output`` go report.html, report.json and the pick's file. Finished work
    is reused, so an interrupted call goes on. Raises `EngineError` when the model itself does not run,
    `ExistsError` unless ``force``.
    """
    from terazi import report, search

    if output is not None:
        report.check_free(output, force=force)
    settings = settings or search.Settings()
    if isinstance(model, search.Study):
        study = model
    else:
        study = propose(model, device=device, use_case=use_case, budget=budget, progress=progress)
    if settings.calibrate:
        study = search.calibrated(study, settings, progress=progress)
    workspace = search.open_workspace(study, settings)
    tools = search.real_tools(study, settings, progress=progress)
    found = search.optimize(study, tools, workspace, progress=progress)
    if output is not None:
        pick = search.pick_file(found, study, tools, workspace)
        subject = report.Subject.of(study.source, study.name, study.digest)
        repeat = report.repeat_command(study, settings, output)
        found = report.publish(found, subject, output, pick=pick, commands=(repeat,), force=force)
        workspace.tidy()
    return found


def compare(
    models: Sequence[Path | str],
    *,
    reference: Path | str | None = None,
    device: Path | str = "this-machine",
    use_case: Path | str = "chat",
    settings: Settings | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure finished variants of one model side by side, under the same settings; quality is relative.

    ``reference`` (by default the first) is what the others are compared with. Returns the report's document;
    `terazi.report.page` makes HTML of it. Raises `EngineError` when the reference does not run, `UsageError`
    when the models do not share a tokenizer.
    """
    from terazi import devices, report, search
    from terazi.registry import resolve_model

    first = reference if reference is not None else models[0]
    names = dict.fromkeys(str(model) for model in (first, *models))
    found, source = search.compare(
        {name: resolve_model(name, progress=progress) for name in names},
        devices.device(device),
        devices.use_case(use_case),
        settings or search.Settings(),
        progress=progress,
    )
    digest = next(entry.candidate.digest for entry in found.ranked if entry.candidate.source)
    subject = report.Subject.of(source, str(first), digest or "")
    return report.document(found, subject, method=report.method(found, scored=False), judged=False)

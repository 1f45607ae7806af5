"""`python -m benchmarks.dedup`: methods beside one another, or the calibration that ships."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asterisk.cli.common import Parser, positive, run
from asterisk.cli.dedup import NUMBERS
from asterisk.common.errors import UsageError
from asterisk.common.files import replacing_file
from asterisk.common.terminal import report as tell
from benchmarks.dedup.bars import bars, verdicts
from benchmarks.dedup.planted import NEGATIVES, Planted, plant
from benchmarks.dedup.reading import texts

THRESHOLDS = (0.80, 0.85, 0.875, 0.90, 0.925, 0.95, 0.97)
BITS = (0, 1, 2, 3, 4, 6, 8, 10, 12)
METHODS = ("asterisk", "simhash letters", "simhash words", "exact")
ROWS = 100_000
LEAST, STEP = 0.70, 0.005  # thresholds of a calibration


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    it = Parser(prog="python -m benchmarks.dedup", description=__doc__)
    it.add_argument("--texts", nargs="+", type=Path, help="a text a line, last column (.zst too)")
    it.add_argument("--artifact", type=Path, required=True, help="artifact folder")
    it.add_argument("--rows", type=positive, default=ROWS, help="texts in all (100000)")
    it.add_argument("--threads", type=positive, default=2, help="default: 2")
    it.add_argument(
        "--numbers", choices=NUMBERS, default=NUMBERS[0], help="what asterisk-dedup does (differ)"
    )
    it.add_argument("--seed", type=int, default=0)
    it.add_argument("--timeout", type=positive, default=3_600, help="seconds a method (3600)")
    it.add_argument(
        "--partition", action="store_true", help="compare within cells only, whatever the size"
    )
    it.add_argument(
        "--methods", nargs="+", choices=METHODS, default=METHODS, help="default: all of them"
    )
    it.add_argument("--out", type=Path, help="JSON file to write")
    it.add_argument("--calibrate", type=Path, help="write the calibration instead")
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    return run(parser(), _bench, argv)


def planted(arguments: argparse.Namespace) -> Planted:
    """Return the planted set over the given texts, or over those that ship."""
    if arguments.texts:
        found = texts(arguments.texts, arguments.seed)
    else:
        from asterisk.common.texts import load

        found = [text.text for text in load()]
    try:
        return plant(found, arguments.rows, arguments.seed)
    except ValueError as failure:
        raise UsageError(f"{failure}: give more --texts, or fewer --rows") from None


def _bench(arguments: argparse.Namespace) -> None:
    made = planted(arguments)
    if arguments.calibrate:
        _calibrate(arguments, made)
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "texts")
        file.write_text("".join(f"{text}\n" for text in made.texts), "utf-8")
        for method in arguments.methods:
            tell(f"{method}: {len(made.texts):,} texts")
            rows.append(_measure(arguments, method, file, Path(folder, "found.npz"), made))
    report: dict[str, Any] = {
        "rows": len(made.texts),
        "texts": [path.name for path in arguments.texts or []] or "those that ship",
        "characters": round(sum(map(len, made.texts)) / len(made.texts), 1),
        "threads": arguments.threads,
        "seed": arguments.seed,
        "partition": arguments.partition,
        "numbers": arguments.numbers,
        "artifact": arguments.artifact.name,
        "load_average": os.getloadavg(),
        "planted": dict(Counter(made.kind).most_common()),
        "methods": rows,
    }
    report["bars"] = [
        {
            "what": bar.what,
            "bound": bar.bound,
            "unit": bar.unit,
            "found": bar.found,
            "verdict": bar.verdict,
        }
        for bar in bars(report)
    ]
    if arguments.out:
        with replacing_file(arguments.out) as staging:
            staging.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print("\n".join(table(report)))


def _measure(
    arguments: argparse.Namespace, method: str, file: Path, out: Path, made: Planted
) -> dict[str, Any]:
    import numpy as np

    from asterisk.bench.process import ask
    from benchmarks.dedup.score import Truth

    ours = method == "asterisk"
    thresholds = THRESHOLDS if ours else (0,) if method == "exact" else BITS
    spec = {
        "method": method,
        "texts": str(file),
        "artifact": str(arguments.artifact),
        "threads": arguments.threads,
        "threshold": 0.9,
        "thresholds": thresholds,
        "exact": 0 if arguments.partition else 1 << 40,
        "numbers": arguments.numbers,
        "out": str(out),
        "started": time.time(),
    }
    answer = ask("benchmarks.dedup.worker", spec, arguments.timeout, quiet=False)
    truth, scores = Truth(made), []
    with np.load(out) as found:
        first, second, nearness = (found[name] for name in ("first", "second", "nearness"))
        for threshold in thresholds:
            near = nearness >= threshold if ours else nearness <= threshold
            scores.append(
                {
                    "threshold": threshold,
                    "pairs": _figures(truth.of_pairs(threshold, first[near], second[near])),
                    "removed": _figures(truth.of_removal(threshold, found[f"at_{threshold}"])),
                }
            )
    return {"method": method, **answer, "scores": scores}


def _figures(score: Any) -> dict[str, Any]:
    names = ("right", "missed", "wrong", "found", "precision", "recall", "f1")
    return {name: getattr(score, name) for name in names}


def table(report: dict[str, Any]) -> list[str]:
    """Return the report as two Markdown tables: what it costs, and how right it is."""
    lines = ["| method | seconds | CPU seconds | peak MB |", "|---|--:|--:|--:|"]
    for row in report["methods"]:
        cost = (f"{row['seconds']:.1f}", f"{row['cpu']:.1f}", f"{row['peak'] / 1e6:.0f}")
        lines.append(f"| {row['method']} | {' | '.join(cost)} |")
    wrong = [*NEGATIVES, "unrelated"]
    lines += [
        "",
        "| method | threshold | pairs P | R | F1 | removed P | R | F1 | wrong: "
        + " | ".join(wrong)
        + " |",
        "|---|--:|--:|--:|--:|--:|--:|--:|" + "--:|" * len(wrong),
    ]
    for row in report["methods"]:
        for score in row["scores"]:
            shares = [
                f"{score[part][name]:.3f}"
                for part in ("pairs", "removed")
                for name in ("precision", "recall", "f1")
            ]
            counts = [f"{score['pairs']['wrong'][kind]:,}" for kind in wrong]
            cells = [row["method"], f"{score['threshold']:g}", *shares, *counts]
            lines.append(f"| {' | '.join(cells)} |")
    return [*lines, *verdicts(report)]


def _calibrate(arguments: argparse.Namespace, made: Planted) -> None:
    """Count right and wrong pairs over a grid of thresholds, for `dedup.calibration`."""
    import numpy as np

    import asterisk
    from asterisk.apps.dedup.texts import normalize
    from asterisk.apps.dedup.vectors import Vectors
    from asterisk.common.vectors import to_int8
    from benchmarks.dedup.pairs import pairs
    from benchmarks.dedup.score import Truth

    with asterisk.load(arguments.artifact, threads=arguments.threads) as runtime:
        vectors = Vectors(to_int8(runtime.encode([normalize(text) for text in made.texts])))
        fingerprint = runtime.fingerprint
    first, second, cosines = pairs(vectors, LEAST, threads=arguments.threads)
    truth, points, numbers = Truth(made), [], []
    for threshold in np.round(np.arange(LEAST, 1, STEP), 3).tolist():
        near = cosines >= threshold
        score = truth.of_pairs(threshold, first[near], second[near])
        wrong = {kind: count for kind, count in score.wrong.items() if kind != "number"}
        points.append([threshold, score.right, sum(wrong.values()), score.missed])
        numbers.append([threshold, score.wrong["number"]])
    table = {
        "fingerprints": [fingerprint],
        "texts": [path.name for path in arguments.texts or []],
        "rows": len(made.texts),
        "seed": arguments.seed,
        "columns": ["threshold", "right", "wrong", "missed"],
        "points": points,
        "changed_numbers_found": numbers,
    }
    with replacing_file(arguments.calibrate) as staging:
        staging.write_text(json.dumps(table).replace("], [", "],\n[") + "\n", "utf-8")
    print(f"wrote {arguments.calibrate}: {len(points)} thresholds over {len(made.texts):,} texts")


if __name__ == "__main__":
    sys.exit(main())

"""Which temperature gives zero-shot labels the best probabilities.

    python benchmarks/zero_shot.py LABELLED.tsv ARTIFACT…

prints each artifact's accuracy and its mean log loss at each temperature, over labelled texts, a
label, a tab and a text a line, whose labels' names say what they mean.
"""

import sys
from pathlib import Path

import numpy as np
from scipy.special import log_softmax

import asterisk
from asterisk.apps.classify.head import zero_shot
from asterisk.apps.classify.labelling import load

TEMPLATE = "This text is about {}."
TEMPERATURES = (0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1)


def main() -> None:
    """Measure what the command line names."""
    labelled = load(Path(sys.argv[1]))
    names = sorted(set(labelled.labels))
    truth = np.array([names.index(label) for label in labelled.labels])
    print("artifact", "accuracy", *TEMPERATURES, sep="\t")
    for artifact in sys.argv[2:]:
        with asterisk.load(artifact, threads=2) as runtime:
            vectors = runtime.encode(labelled.texts)
            head = zero_shot(runtime, names, template=TEMPLATE, temperature=1)
            cosines = head.logits(vectors)
        found = [log_softmax(cosines / temperature, axis=1) for temperature in TEMPERATURES]
        losses = [-each[np.arange(len(truth)), truth].mean() for each in found]
        accuracy = (cosines.argmax(1) == truth).mean()
        print(Path(artifact).name, f"{accuracy:.3f}", *(f"{loss:.3f}" for loss in losses), sep="\t")


if __name__ == "__main__":
    main()

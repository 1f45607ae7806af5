"""An artifact as a scikit-learn transformer, texts in, vectors out; it needs that and the engine.

>>> from asterisk.integrations.sklearn import AsteriskVectorizer
>>> make_pipeline(AsteriskVectorizer("artifact"), LogisticRegression())  # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import MissingPackage, UsageError

try:
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.utils.validation import check_is_fitted
except ModuleNotFoundError as failure:
    raise MissingPackage("scikit-learn", "; install it with: pip install scikit-learn") from failure

from asterisk.artifact import share_space, spaces
from asterisk.common.errors import integer, strings
from asterisk.integrations import LazyRuntime
from asterisk.runtimes.runtime import Vectors

TEXTS = "X must be a list of strings"


class AsteriskVectorizer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Embeds an iterable of texts, float32 [n, d], as a step of a pipeline.

    Nothing is learned: `fit` opens the artifact and notes ``n_features_out_`` and the embedding
    space's ``fingerprint_``. The engine is opened where it is missing, never pickled or cloned.
    """

    def __init__(
        self,
        artifact: str | os.PathLike[str] = "",
        *,
        threads: int = 1,
        dim: int | None = None,
        normalize: bool | None = None,
        prompt_name: str | None = None,
    ) -> None:
        # As they are, unchecked: scikit-learn's contract for parameters.
        self.artifact, self.threads = artifact, threads
        self.dim = dim  # the first dimensions are kept
        self.normalize = normalize  # what is kept has unit length; None: as the folder says
        self.prompt_name = prompt_name  # the model's prompt before each text; None: its default

    def fit(self, X: Iterable[str], y: Any = None) -> Self:  # noqa: N803, ARG002
        """Check the parameters and the texts; UsageError, ArtifactError where they are wrong."""
        _ = list(strings(X, TEXTS))
        runtime = self._opened().runtime
        size = runtime.config.embedding_size
        self.n_features_out_ = size if self.dim is None else integer("dim", self.dim, 1, size)
        runtime.prompt(self.prompt_name)
        self.fingerprint_ = runtime.fingerprint
        return self

    def transform(self, X: Iterable[str]) -> Vectors:  # noqa: N803
        """Embed texts; UsageError if another embedding space's artifact has taken its place."""
        check_is_fitted(self)
        texts = list(strings(X, TEXTS))
        lazy = self._opened()
        runtime = lazy.runtime
        if not share_space((self.fingerprint_,), spaces(runtime)):
            raise UsageError(f"{self.artifact} is of another embedding space than at fit")
        if (self.dim or runtime.config.embedding_size) != self.n_features_out_:
            raise UsageError(f"{self.artifact} gives other dimensions than at fit")
        options = {"dim": self.dim, "normalize": self.normalize, "prompt_name": self.prompt_name}
        return lazy.encode(texts, **options)

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[np.object_]:  # noqa: ARG002
        """Return asterisk0, asterisk1, …; ``input_features`` is for the signature only."""
        check_is_fitted(self)
        return np.array([f"asterisk{number}" for number in range(self.n_features_out_)], object)

    def close(self) -> None:
        """Release the engine; the next use opens it again."""
        lazy = self.__dict__.pop("_lazy", None)
        if lazy is not None:
            lazy.close()

    def _opened(self) -> LazyRuntime:
        """Return the engine of the parameters as they are now."""
        wanted = LazyRuntime(self.artifact, self.threads)
        if getattr(self, "_lazy", None) != wanted:
            self.close()
            self._lazy = wanted
        return self._lazy

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_lazy"}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.requires_fit = True
        tags.transformer_tags.preserves_dtype = []
        return tags

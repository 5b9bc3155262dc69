"""Model directories, torchvision's models by name, their labels, and the forward pass."""

from irs.imaging import Preprocess
from irs.models.catalog import Entry, list_models, show_model
from irs.models.forward import Forward
from irs.models.labels import Answer, Answers
from irs.models.model import Model
from irs.models.open import open_model

__all__ = ["Answer", "Answers", "Entry", "Forward", "Model", "Preprocess", "list_models", "open_model", "show_model"]

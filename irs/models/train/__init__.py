"""Training: a folder of class folders to a model directory."""

from irs.models.train.options import Listener, TrainingOptions, TrainingProgress, TrainingStopped
from irs.models.train.run import train
from irs.models.train.write import Trained

__all__ = ["Listener", "Trained", "TrainingOptions", "TrainingProgress", "TrainingStopped", "train"]

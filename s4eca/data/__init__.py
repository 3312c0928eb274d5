"""The data room: files on disk become References, Samples and Batches."""

from s4eca.data.checks import SPLITS
from s4eca.data.datamodule import ReferringDataModule
from s4eca.data.dataset import Collate, ReferenceDataset, count_truncated
from s4eca.data.masks import FileMask, RleMask
from s4eca.data.references import Batch, MaskSource, Reference, Sample
from s4eca.data.refsegrs import RefSegRSDataModule, read_refsegrs
from s4eca.data.resize import resize_image, resize_mask
from s4eca.data.rrsis_d import RRSISDDataModule, read_refer_entries, read_rrsis_d
from s4eca.data.sampler import EpochSampler
from s4eca.data.synthetic import SyntheticDataModule, synthesize
from s4eca.data.transforms import Augmentation, Photometric

__all__ = [
    "SPLITS",
    "Augmentation",
    "Batch",
    "Collate",
    "EpochSampler",
    "FileMask",
    "MaskSource",
    "Photometric",
    "RRSISDDataModule",
    "RefSegRSDataModule",
    "Reference",
    "ReferenceDataset",
    "ReferringDataModule",
    "RleMask",
    "Sample",
    "SyntheticDataModule",
    "count_truncated",
    "read_refer_entries",
    "read_refsegrs",
    "read_rrsis_d",
    "resize_image",
    "resize_mask",
    "synthesize",
]

"""The data room: files on disk become References, Samples and Batches."""

from s4eca.data.checks import SPLITS
from s4eca.data.datamodule import ReferringDataModule, RefSegRSDataModule, RRSISDDataModule, SyntheticDataModule
from s4eca.data.dataset import Collate, ReferenceDataset, count_truncated
from s4eca.data.masks import FileMask, RleMask
from s4eca.data.references import Batch, MaskSource, Reference, Sample
from s4eca.data.refsegrs import read_refsegrs
from s4eca.data.rrsis_d import read_refer_entries, read_rrsis_d
from s4eca.data.sampler import EpochSampler
from s4eca.data.synthetic import synthesize
from s4eca.data.transforms import Augmentation, Photometric, resize_image, resize_mask

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

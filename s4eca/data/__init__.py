"""The data room: files on disk become References, Samples and Batches."""

from s4eca.data.checks import SPLITS
from s4eca.data.convert import convert
from s4eca.data.datamodule import ReferringDataModule
from s4eca.data.dataset import Collate, ReferenceDataset, count_truncated
from s4eca.data.joint import JointDataModule
from s4eca.data.jsonl import JsonlDataModule, read_jsonl, write_jsonl
from s4eca.data.layouts import LAYOUTS, DataLayout, detect_layout
from s4eca.data.masks import EmptyMask, FileMask, RleMask, StoredMask, encode_mask
from s4eca.data.refer import ReferDataModule, read_refer
from s4eca.data.references import Batch, MaskSource, Reference, Sample
from s4eca.data.refsegrs import RefSegRSDataModule, read_refsegrs
from s4eca.data.resize import resize_image, resize_mask
from s4eca.data.risbench import RISBenchDataModule, read_risbench
from s4eca.data.rrsis_d import RRSISDDataModule, read_refer_entries, read_rrsis_d
from s4eca.data.sampler import EpochSampler
from s4eca.data.synthetic import SyntheticDataModule, synthesize
from s4eca.data.transforms import Augmentation, Photometric

__all__ = [
    "LAYOUTS",
    "SPLITS",
    "Augmentation",
    "Batch",
    "Collate",
    "DataLayout",
    "EmptyMask",
    "EpochSampler",
    "FileMask",
    "JointDataModule",
    "JsonlDataModule",
    "MaskSource",
    "Photometric",
    "RISBenchDataModule",
    "RRSISDDataModule",
    "RefSegRSDataModule",
    "ReferDataModule",
    "Reference",
    "ReferenceDataset",
    "ReferringDataModule",
    "RleMask",
    "Sample",
    "StoredMask",
    "SyntheticDataModule",
    "convert",
    "count_truncated",
    "detect_layout",
    "encode_mask",
    "read_jsonl",
    "read_refer",
    "read_refer_entries",
    "read_refsegrs",
    "read_risbench",
    "read_rrsis_d",
    "resize_image",
    "resize_mask",
    "synthesize",
    "write_jsonl",
]

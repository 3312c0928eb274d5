"""The data room: files on disk become References, Samples and Batches."""

from s4eca.data.augmentation.transforms import Augmentation
from s4eca.data.convert import convert
from s4eca.data.datamodule import ReferringDataModule
from s4eca.data.dataset import Collate, ReferenceDataset
from s4eca.data.joint import JointDataModule
from s4eca.data.masks import EmptyMask, FileMask, RleMask, StoredMask, encode_mask
from s4eca.data.readers.checks import SPLITS
from s4eca.data.readers.jsonl import JsonlDataModule, read_jsonl, write_jsonl
from s4eca.data.readers.layouts import LAYOUTS, DataLayout, detect_layout
from s4eca.data.readers.refer import ReferDataModule, read_refer
from s4eca.data.readers.refsegrs import RefSegRSDataModule, read_refsegrs
from s4eca.data.readers.risbench import RISBenchDataModule, read_risbench
from s4eca.data.readers.rrsis_d import RRSISDDataModule, read_refer_entries, read_rrsis_d
from s4eca.data.references import Batch, MaskSource, Reference, Sample
from s4eca.data.resize import resize_image, resize_mask
from s4eca.data.sampler import EpochSampler
from s4eca.data.synthetic.module import SyntheticDataModule, synthesize

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

"""Datasets on disk: one file per layout, with its reader, its data module and, where there is one, its writer."""

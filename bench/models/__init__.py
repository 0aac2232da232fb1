"""One file per model family; each defines FAMILY. The workload module imports every file in this folder."""

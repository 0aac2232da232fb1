"""One file per model family; each defines FAMILY. The workload module imports all files without a leading
underscore."""

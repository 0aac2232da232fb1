"""One file per model family; each defines FAMILY. The workload module imports those without an underscore before."""

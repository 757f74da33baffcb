"""Public datasets, one family a file."""

from wisepatch.datasets.published.readers import open_folders as open_folders  # where plugins found it before

"""Settings of all tests: quiet threads, no network, no model hub."""

import os

# Nobody's database, server or workers: what these tests start is their own.
for _name in [name for name in os.environ if name.startswith(("UNI_MOE_", "PREFECT_"))]:
    if _name not in ("UNI_MOE_PARITY_DIR", "UNI_MOE_S3_ENDPOINT"):
        del os.environ[_name]
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")

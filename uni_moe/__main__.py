"""`python -m uni_moe` is the command `uni-moe`."""

from uni_moe.cli import main

raise SystemExit(main())

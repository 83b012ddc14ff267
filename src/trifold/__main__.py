"""`python -m trifold`, as torchrun starts it: `torchrun --nproc-per-node 2 -m trifold train …`."""

from trifold.cli import main

if __name__ == "__main__":
    main()

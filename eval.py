"""Evaluate a checkpoint: python eval.py ckpt=PATH data.root=PATH."""

from s4eca.cli.eval import main

if __name__ == "__main__":
    main()

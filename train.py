"""Train: python train.py experiment=demo (see conf/experiment for more)."""

from s4eca.cli.train import main

if __name__ == "__main__":
    main()

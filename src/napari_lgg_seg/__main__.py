"""``python -m napari_lgg_seg`` runs the command line."""

from .cli.app import main

if __name__ == "__main__":
    main()

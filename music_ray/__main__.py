"""`python -m music_ray` is the same program as `music-ray`, so that a Ray job needs no install step."""

from music_ray.cli import main

if __name__ == "__main__":
    main()

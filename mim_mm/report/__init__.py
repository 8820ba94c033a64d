"""From run.json files to one page: collect, put beside published numbers, draw, write. Start it with
``python -m mim_mm.report WORK_DIR``."""

"""``python -m appliance`` is ``openclawmu``."""

from appliance.cli.main import main

main(prog_name="openclawmu")

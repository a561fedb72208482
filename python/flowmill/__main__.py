"""Starts the program of the wheel: ``python -m flowmill run recipes/demo``."""

import os
import sys
import sysconfig

program = os.path.join(sysconfig.get_path("scripts"), "flowmill")
if not os.path.isfile(program):
    sys.exit(f"{program} does not exist: the package was installed without its program")
os.execv(program, [program, *sys.argv[1:]])

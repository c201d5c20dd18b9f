"""`patchlight` with the words after the first, and Ctrl-C (SIGINT) in so-and-so many steps of the second stage.

A real signal to the real command: only the moment is chosen.
"""

import os
import signal
import sys

from patchlight.cli import main
from patchlight.training.loop import Trainer

after, train_step, taken = int(sys.argv[1]), Trainer.train_step, []


def counted(self, epoch, step):
    answer = train_step(self, epoch, step)
    taken.extend([1] * self.state.stage)
    if len(taken) == after:
        os.kill(os.getpid(), signal.SIGINT)
    return answer


Trainer.train_step = counted
sys.exit(main(sys.argv[2:]))

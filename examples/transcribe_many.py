"""Many files at once, as one batch: the text of each as it is done."""

import sys

from speech_reallm import Recognizer
from speech_reallm.batch import transcribe_files

if len(sys.argv) < 2:
    sys.exit(f"usage: python {sys.argv[0]} FILE ...")
files = sys.argv[1:]
for result in transcribe_files(Recognizer.load(), files):
    print(f"{files[result.index]}: {result.transcript.text if result.transcript else result.error}")

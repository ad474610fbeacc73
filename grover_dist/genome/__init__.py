"""From FASTA to contigs, soft mask, intervals and splits."""

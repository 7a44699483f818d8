#!/bin/sh
# A verifier for scripts/gpu_check.sh: calls every other response right, so that random weights have something to learn.
right=0
while IFS= read -r question; do
  id="${question#*\"id\":}"
  right=$((1 - right))
  printf '{"id": %s, "accuracy": %s}\n' "${id%%,*}" "$right"
done

"""How do rows become token ids and labels, as Axolotl would make them? torch is not imported."""

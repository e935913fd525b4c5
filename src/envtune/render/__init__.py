"""How is it written for Axolotl, accelerate and a child's command line?"""

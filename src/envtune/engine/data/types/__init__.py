"""What does each type of data set make of its rows, as Axolotl lays them out?"""

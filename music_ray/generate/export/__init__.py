"""MUSIC pairs in the formats that other trainers read, and on the Hugging Face hub.

Everything here reads what the pairs stage has accepted; nothing is generated again, and no stage waits
for what is written here.
"""

"""What the service asks of other hosts: files that a caller names, results it wants put somewhere, webhooks.

addresses  which addresses may be connected to
http       requests to them, resolved once, redirects checked
fetching   `source=`: an https:// address or an object of a bucket
webhooks   Standard Webhooks: what is sent and how it is signed
"""

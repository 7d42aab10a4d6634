"""The web page at `/ui`: pages rendered here, and thin aliases of the API that they call.

    identity   whose a request is: its key may be in a cookie below /ui, and nowhere else
    session    signing in and out
    pages      tasks, one task, playground, live
    calls      what the pages' scripts call, by the same routes as the API
    assets     the style and the scripts
    rendering  templates, what surrounds every page, the headers of each
    figures    sizes and times as people read them
    errors     what went wrong, as a page

Nothing here knows how anything is done: the services are those of the API.
"""
